/* See uio_channel.h. */
#include "uio_channel.h"

#include <cpuid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "abi/vmbus_layout.h"

#define DEVICES "/sys/bus/vmbus/devices"
#define DRIVER "/sys/bus/vmbus/drivers/uio_hv_generic"
enum {
	PAGE_BYTES = 4096,
	MAP_RINGS = 0,
	MAP_MONITOR = 2,
	MAP_SEND = 4, /* as uio_hv_generic numbers its maps */
	TRIGGERS_AT = 8, GROUP_BYTES = 8, GROUP_BITS = 32, MONITOR_IDS = 128,
	BIND_TRIES = 200, TRY_NS = 10000000,
	FULL_NS = 100000,
	VERSION_MS = 10000,
	TEXT_BYTES = 64,
	/* docs/umbra-interface.md: "Umbr"; the host looks at the monitor page at once */
	LEAF_VENDOR = 0x40000100, LEAF_LOOK = 0x40000103, LOOK_WAITS = 1, VENDOR = 0x72626d55
};

/* ---- finding it ---- */

static int read_text(const char *folder, const char *name, char *text, size_t room)
{
	char path[512];
	ssize_t got;
	int fd;

	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	got = read(fd, text, room - 1);
	close(fd);
	if (got < 0)
		return -EIO;
	text[got] = 0;
	text[strcspn(text, "\n")] = 0;
	return 0;
}

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t put;
	int error;

	if (fd < 0)
		return -errno;
	put = write(fd, text, strlen(text));
	error = put < 0 ? -errno : 0;
	close(fd);
	return error;
}

static void class_text(struct guid class, char text[TEXT_BYTES])
{
	const uint8_t *b = class.byte;

	snprintf(text, TEXT_BYTES,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[3], b[2],
		 b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
		 b[15]);
}

static int by_name(const struct dirent **one, const struct dirent **other)
{
	return strcmp((*one)->d_name, (*other)->d_name);
}

static bool is_of_class(const char *place, const char *class)
{
	char text[TEXT_BYTES];

	return !read_text(place, "class_id", text, sizeof(text)) && strlen(text) > 2 &&
	       !strncmp(text + 1, class, strlen(class));
}

/* In the order of their instances, of which the number is the last digit. */
static int find_device(struct uio_channel *channel, const char *class, unsigned number)
{
	struct dirent **entry;
	const int count = scandir(DEVICES, &entry, NULL, by_name);
	int error = -ENOENT;

	for (int n = 0; n < count; n++) {
		snprintf(channel->place, sizeof(channel->place), DEVICES "/%s", entry[n]->d_name);
		if (error && is_of_class(channel->place, class) && !number--) {
			error = 0;
			break;
		}
	}
	for (int n = 0; n < count; n++)
		free(entry[n]);
	if (count >= 0)
		free(entry);
	return error;
}

/* The uio device of it, once the driver has it. */
static int find_uio(const struct uio_channel *channel, char name[TEXT_BYTES])
{
	char path[sizeof(channel->place) + 8];
	struct dirent *entry;
	DIR *folder;
	int error = -ENOENT;

	snprintf(path, sizeof(path), "%s/uio", channel->place);
	folder = opendir(path);
	if (!folder)
		return -errno;
	while (error && (entry = readdir(folder)))
		if (!strncmp(entry->d_name, "uio", 3)) {
			snprintf(name, TEXT_BYTES, "%.32s", entry->d_name);
			error = 0;
		}
	closedir(folder);
	return error;
}

static int bind_driver(const struct uio_channel *channel, const char *class, char name[TEXT_BYTES])
{
	int error = find_uio(channel, name);

	if (!error)
		return 0;
	error = write_text(DRIVER "/new_id", class);
	if (error && error != -EEXIST)
		return error;
	for (unsigned n = 0; n < BIND_TRIES; n++) {
		if (!find_uio(channel, name))
			return 0;
		nanosleep(&(struct timespec){ .tv_nsec = TRY_NS }, NULL);
	}
	return -ENODEV;
}

/* ---- its memory ---- */

static size_t map_size(const struct uio_channel *channel, const char *uio, unsigned map)
{
	char name[TEXT_BYTES + 32];
	char text[TEXT_BYTES];

	snprintf(name, sizeof(name), "uio/%s/maps/map%u/size", uio, map);
	return read_text(channel->place, name, text, sizeof(text)) ? 0 : strtoull(text, NULL, 0);
}

static void *map_of(const struct uio_channel *channel, unsigned map, size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, channel->fd,
			(off_t)map * PAGE_BYTES);

	return at == MAP_FAILED ? NULL : at;
}

/* EAX; *ret_ebx. */
static uint32_t read_leaf(uint32_t leaf, uint32_t subleaf, uint32_t *ret_ebx)
{
	uint32_t eax, ebx, ecx, edx;

	__cpuid_count(leaf, subleaf, eax, ebx, ecx, edx);
	*ret_ebx = ebx;
	return eax;
}

static void signal_host(void *context)
{
	const struct uio_channel *channel = context;

	__atomic_fetch_or(channel->pending, channel->bit, __ATOMIC_SEQ_CST);
	if (channel->has_look)
		read_leaf(LEAF_LOOK, 0, &(uint32_t){ 0 });
}

/* A moment, in which the host looks for what it has for this machine. */
static void host_looks(const struct uio_channel *channel)
{
	if (channel->has_look)
		read_leaf(LEAF_LOOK, LOOK_WAITS, &(uint32_t){ 0 });
}

/* Else it looks every now and then. */
static bool has_look(void)
{
	uint32_t vendor;

	return read_leaf(LEAF_VENDOR, 0, &vendor) >= LEAF_LOOK && vendor == VENDOR;
}

static int find_bit(struct uio_channel *channel)
{
	char text[TEXT_BYTES];
	unsigned long id;

	if (read_text(channel->place, "monitor_id", text, sizeof(text)))
		return -ENOENT;
	id = strtoul(text, NULL, 0);
	if (id >= MONITOR_IDS)
		return -ENOTSUP;
	channel->bit = 1u << id % GROUP_BITS;
	channel->pending = (volatile uint32_t *)(void *)(channel->monitor + TRIGGERS_AT +
							 id / GROUP_BITS * GROUP_BYTES);
	return 0;
}

static int map_rings(struct uio_channel *channel)
{
	size_t half;

	channel->rings_bytes = map_size(channel, channel->uio, MAP_RINGS);
	half = channel->rings_bytes / 2;
	if (half < 2 * (size_t)PAGE_BYTES || half > UINT32_MAX / 2)
		return -EINVAL;
	channel->rings = map_of(channel, MAP_RINGS, channel->rings_bytes);
	channel->monitor = map_of(channel, MAP_MONITOR, PAGE_BYTES);
	if (!channel->rings || !channel->monitor)
		return -errno;
	channel->channel = (struct umbra_channel){
		.send = channel->rings, .receive = channel->rings + half,
		.send_bytes = (uint32_t)half - PAGE_BYTES,
		.receive_bytes = (uint32_t)half - PAGE_BYTES,
		.signal = signal_host, .context = channel,
	};
	return find_bit(channel);
}

/* No RAM, which /dev/mem shows also where it shows no RAM. */
static int map_window(struct uio_channel *channel, const struct share_version_answer *answer)
{
	const int fd = open("/dev/mem", O_RDWR | O_CLOEXEC);
	void *at;

	if (fd < 0)
		return -errno;
	channel->window_pages = answer->window_pages;
	channel->window_bytes = ((size_t)answer->window_pages + 1) * PAGE_BYTES;
	at = mmap(NULL, channel->window_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		  (off_t)answer->window_gpa);
	close(fd);
	if (at == MAP_FAILED)
		return -errno;
	channel->window = at;
	return 0;
}

static int map_read_only(struct uio_channel *channel, const struct share_version_answer *answer)
{
	const int fd = open("/dev/mem", O_RDONLY | O_CLOEXEC);
	const void *at;

	if (fd < 0)
		return -errno;
	at = mmap(NULL, (size_t)answer->window_pages * PAGE_BYTES, PROT_READ, MAP_SHARED, fd,
		  (off_t)answer->read_only_gpa);
	close(fd);
	if (at == MAP_FAILED)
		return -errno;
	channel->read_only = at;
	return 0;
}

static int agree(struct uio_channel *channel)
{
	_Alignas(8) uint8_t got[SHARE_MESSAGE_BYTES];
	struct share_version_answer answer = { .version = 0 };
	struct umbra_packet packet;
	const uint64_t transaction = uio_channel_transaction(channel);
	int bytes;
	int error;

	if (umbra_share_ask_version(&channel->channel, transaction))
		return -EPROTO;
	do
		bytes = uio_channel_receive(channel, &packet, got, sizeof(got), VERSION_MS);
	while (bytes > 0 && packet.type != PACKET_COMPLETION);
	if (bytes < SHARE_VERSION_ANSWER_1_1_BYTES)
		return -EPROTO;
	memcpy(&answer, got, (size_t)bytes < sizeof(answer) ? (size_t)bytes : sizeof(answer));
	if (answer.head.status || !answer.window_pages || answer.window_pages > 1 << 16)
		return -EPROTO;
	channel->peer_is_there = answer.peer_is_there;
	error = map_window(channel, &answer);
	return error || !answer.read_only_gpa ? error : map_read_only(channel, &answer);
}

int uio_channel_open(struct uio_channel *channel, struct guid class, unsigned number)
{
	char text[TEXT_BYTES];
	char path[TEXT_BYTES + 8];
	int error;

	*channel = (struct uio_channel){ .fd = -1, .has_look = has_look(), .brief.is_far = true };
	class_text(class, text);
	error = find_device(channel, text, number);
	if (!error)
		error = bind_driver(channel, text, channel->uio);
	if (error)
		return error;
	snprintf(path, sizeof(path), "/dev/%s", channel->uio);
	channel->fd = open(path, O_RDWR | O_CLOEXEC);
	error = channel->fd < 0 ? -errno : map_rings(channel);
	if (!error)
		error = agree(channel);
	if (error)
		uio_channel_close(channel);
	return error;
}

void uio_channel_close(struct uio_channel *channel)
{
	if (channel->memory)
		munmap(channel->memory, channel->memory_bytes);
	if (channel->window)
		munmap(channel->window, channel->window_bytes);
	if (channel->read_only)
		munmap((void *)(uintptr_t)channel->read_only,
		       (size_t)channel->window_pages * PAGE_BYTES);
	if (channel->monitor)
		munmap(channel->monitor, PAGE_BYTES);
	if (channel->rings)
		munmap(channel->rings, channel->rings_bytes);
	if (channel->fd >= 0)
		close(channel->fd);
	*channel = (struct uio_channel){ .fd = -1 };
}

/* ---- messages ---- */

uint64_t uio_channel_transaction(struct uio_channel *channel)
{
	return ++channel->last_transaction;
}

int uio_channel_send(struct uio_channel *channel, const void *data, uint32_t bytes, uint32_t lend)
{
	int status;

	while ((status = umbra_share_send(&channel->channel, 0, lend, data, bytes)) ==
	       UMBRA_CHANNEL_FULL)
		nanosleep(&(struct timespec){ .tv_nsec = FULL_NS }, NULL);
	if (status == UMBRA_CHANNEL_LONG)
		return -EMSGSIZE;
	return status ? -EPROTO : 0;
}

/*
 * Until the host interrupts: 1; 0: it did not; -EIO: the channel was taken away. The driver counts
 * interrupts, and one that came before this one began is among them.
 */
static int sleep_until_interrupt(struct uio_channel *channel, int timeout_ms)
{
	struct pollfd event = { .fd = channel->fd, .events = POLLIN };
	uint32_t count;
	int ready = 1;

	umbra_channel_want_interrupts(&channel->channel, true);
	if (!umbra_channel_has_packet(&channel->channel))
		ready = poll(&event, 1, timeout_ms);
	if (ready > 0 && event.revents && read(channel->fd, &count, sizeof(count)) < 0)
		ready = -EIO;
	umbra_channel_want_interrupts(&channel->channel, false);
	if (ready < 0 && errno == EINTR)
		return 0;
	return ready < 0 ? -EIO : ready;
}

int uio_channel_receive(struct uio_channel *channel, struct umbra_packet *ret, void *to,
			uint32_t room, int timeout_ms)
{
	int got;
	int ready = 1;

	while ((got = umbra_channel_get(&channel->channel, ret, to, room)) == UMBRA_CHANNEL_NONE) {
		if (ready <= 0) {
			brief_wait_forget(&channel->brief);
			return ready;
		}
		if (brief_wait_looks(&channel->brief)) {
			host_looks(channel);
			continue;
		}
		ready = sleep_until_interrupt(channel, timeout_ms);
	}
	brief_wait_found(&channel->brief);
	if (got < (int)sizeof(struct share_head))
		return -EPROTO;
	if (ret->type != PACKET_COMPLETION && ((struct share_head *)to)->kind == SHARE_PEER &&
	    got >= (int)sizeof(struct share_peer))
		channel->peer_is_there = ((struct share_peer *)to)->is_there;
	return got;
}

/* ---- pages ---- */

uint8_t *uio_channel_memory(struct uio_channel *channel, size_t bytes)
{
	const size_t most = map_size(channel, channel->uio, MAP_SEND);

	if (channel->memory || bytes > most)
		return bytes <= channel->memory_bytes ? channel->memory : NULL;
	channel->memory = map_of(channel, MAP_SEND, most);
	if (channel->memory) {
		channel->memory_bytes = most;
		memset(channel->memory, 0, bytes); /* a page has a number once it was touched */
	}
	return channel->memory;
}

int uio_channel_pages(const void *memory, uint32_t pages, uint64_t *ret_gfn)
{
	const uint64_t present = 1ull << 63;
	const uint64_t number = (1ull << 55) - 1;
	const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	const size_t bytes = pages * sizeof(*ret_gfn);
	ssize_t got;

	if (fd < 0)
		return -errno;
	got = pread(fd, ret_gfn, bytes,
		    (off_t)((uintptr_t)memory / PAGE_BYTES * sizeof(*ret_gfn)));
	close(fd);
	if (got != (ssize_t)bytes)
		return -EIO;
	for (uint32_t n = 0; n < pages; n++) {
		if (!(ret_gfn[n] & present) || !(ret_gfn[n] & number))
			return -EPERM;
		ret_gfn[n] &= number;
	}
	return 0;
}

uint64_t uio_channel_window_number(const struct uio_channel *channel)
{
	const void *word = channel->window + (size_t)channel->window_pages * PAGE_BYTES;

	return __atomic_load_n(&((const struct share_window_word *)word)->number, __ATOMIC_ACQUIRE);
}
