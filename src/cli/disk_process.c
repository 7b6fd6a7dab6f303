/* See disk_process.h. */
#include "disk_process.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/lockdown.h"
#include "process/block_server.h"
#include "cli.h"

struct opened { struct disk_process *process; const struct broker_helper *helper; struct disk *disk[BLOCK_DISKS]; unsigned count; };

/* ---- options ---- */

static int take_word(struct disk_choice *c, const char *word)
{
	enum disk_format unused;

	if (!strcmp(word, "readonly"))
		return c->read_only = true, 0;
	if (!strcmp(word, "direct"))
		return c->direct = true, 0;
	if (!strncmp(word, "format=", 7))
		return disk_parse_format(c->format = word + 7, &unused);
	return complain(EXIT_USAGE, "not an option of --disk", word, "say format=FORMAT, readonly or direct after the file's name");
}

int disk_process_add(struct disk_process *p, const char *text)
{
	struct disk_choice *c = &p->disk[p->count];
	char *rest = strdup(text);
	int code = 0;

	if (!rest)
		return complain(EXIT_FAULT, strerror(ENOMEM), text, "see umbra doctor");
	if (p->count == BLOCK_DISKS) {
		free(rest);
		return complain(EXIT_USAGE, "more than 16 disks", text, "leave some out");
	}
	*c = (struct disk_choice){ .path = strsep(&rest, ",") };
	for (char *word; !code && (word = strsep(&rest, ","));)
		code = take_word(c, word);
	p->count++;
	return code ? code : *c->path ? 0 : complain(EXIT_USAGE, "no file given", "--disk", "say --disk FILE");
}

int disk_process_add_image(struct disk_process *p, const char *text)
{
	int code = disk_process_add(p, text);
	struct disk_choice last;

	if (code)
		return code;
	last = p->disk[p->count - 1];
	memmove(p->disk + 1, p->disk, (p->count - 1) * sizeof(p->disk[0]));
	p->disk[0] = last;
	return 0;
}

int disk_process_add_parents(struct disk_process *p, const char *path)
{
	if (p->parent_count == PLACES)
		return complain(EXIT_USAGE, "too many places for parents", path, "name at most 16");
	p->parents[p->parent_count++] = path;
	return 0;
}

int disk_process_prepare(struct disk_process *p, struct machine_disks *ret)
{
	p->memory = mmap(NULL, sizeof(*p->memory), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	p->doorbell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->answer_fd = eventfd(0, EFD_CLOEXEC);
	if (p->memory == MAP_FAILED || p->doorbell_fd < 0 || p->answer_fd < 0)
		return complain(EXIT_FAULT, strerror(errno), "--disk", "see umbra doctor");
	*ret = (struct machine_disks){ p->memory, p->doorbell_fd, p->answer_fd };
	return 0;
}

/* ---- the process ---- */

/* A format without an identifier of its own: the file's place, which stays the same while the file does. */
static void identify(const char *path, struct block_disk *d)
{
	static const uint8_t none[sizeof(d->id)];
	struct stat st;

	if (memcmp(d->id, none, sizeof(none)) || stat(path, &st))
		return;
	memcpy(d->id, &st.st_ino, 8);
	memcpy(d->id + 8, &st.st_dev, 8);
}

static int open_choice(const struct disk_process *p, const struct disk_choice *c, struct disk **ret)
{
	struct arguments a = { .override = p->override, .place_count = p->parent_count };
	const unsigned actions = IMAGE_ACTION(c->read_only ? ACTION_READ : ACTION_WRITE) | IMAGE_ACTION(ACTION_ATTACH);

	memcpy(a.places, p->parents, sizeof(a.places));
	return disk_cli_open_with(&a, c->path, c->format, actions, (struct disk_options){ .write = !c->read_only, .direct = c->direct }, ret);
}

static int open_one(struct opened *o, const struct disk_choice *c)
{
	struct disk **d = &o->disk[o->count];
	int code = open_choice(o->process, c, d);

	if (code)
		return code;
	if (!c->read_only)
		disk_cli_note(*d, "attached", NULL);
	block_describe(*d, !c->read_only, &o->process->memory->disk[o->count]);
	identify(c->path, &o->process->memory->disk[o->count]);
	o->count++;
	return 0;
}

static int open_all(struct opened *o)
{
	int code = 0;

	for (unsigned n = 0; n < o->process->count && !code; n++)
		code = open_one(o, &o->process->disk[n]);
	o->process->memory->disks = o->count;
	return code;
}

/* The last that is written to them; the first code that is not 0. */
static int close_all(struct opened *o, int code)
{
	for (unsigned n = 0; n < o->count; n++) {
		if (!o->process->disk[n].read_only)
			disk_cli_note(o->disk[n], "detached", NULL);
		code = disk_cli_close(o->disk[n], code);
	}
	return code;
}

int disk_process_find_boot(struct disk_process *p, struct image_boot *ret)
{
	const char *path = p->disk[0].path;
	struct disk *d;
	int code = open_choice(p, &p->disk[0], &d), error;

	if (code)
		return code;
	error = image_find_boot(d, ret);
	if (error == -ENOENT)
		code = complain(EXIT_UNUSABLE, "no kernel in a root file system of the ext family", path, "name one with --kernel, and --initrd");
	else if (error)
		code = disk_io_failed(path, error);
	code = disk_cli_close(d, code);
	if (code)
		image_free_boot(ret);
	return code;
}

static int take_rights(void *context)
{
	struct opened *o = context;
	int error = lockdown(LOCKDOWN_DISKS, NULL, NULL);

	if (!error && write(o->helper->ready_fd, "", 1) != 1)
		error = -errno;
	close(o->helper->ready_fd);
	return error;
}

/* Where what a format keeps beside its data is a file, it is replaced when the disk is closed: in these folders. */
static void open_folders(const struct disk_process *p, int folders[BLOCK_DISKS + 1])
{
	unsigned used = 0;

	for (unsigned n = 0; n < p->count; n++) {
		char *copy = p->disk[n].read_only ? NULL : strdup(p->disk[n].path);
		int fd = copy ? open(dirname(copy), O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;

		if (fd >= 0)
			folders[used++] = fd;
		free(copy);
	}
	folders[used] = -1;
}

int disk_process(const struct broker_helper *h, struct disk_process *p)
{
	struct opened o = { .process = p, .helper = h };
	struct block_service service = { p->memory, o.disk, 0, p->doorbell_fd, p->answer_fd, h->end_fd };
	const int kept[] = { STDERR_FILENO, p->doorbell_fd, p->answer_fd, h->ready_fd, h->end_fd, -1 };
	int folders[BLOCK_DISKS + 1], code, error;

	lockdown_close_all_but(kept);
	code = open_all(&o);
	if (code)
		return close_all(&o, code);
	open_folders(p, folders);
	service.count = o.count;
	error = lockdown_before_threads(LOCKDOWN_DISKS, folders);
	if (!error)
		error = block_serve(&service, take_rights, &o);
	if (error == -EBADMSG)
		code = complain(EXIT_FAULT, "the machine process broke the protocol", "disks", "please report it");
	else if (error)
		code = complain(EXIT_FAULT, strerror(-error), "serving disks", "see umbra doctor");
	return close_all(&o, code);
}

int disk_process_code(int wait_status)
{
	if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status))
		return WEXITSTATUS(wait_status);
	return complain(EXIT_FAULT, WIFEXITED(wait_status) ? "it ended" : strsignal(WTERMSIG(wait_status)), "the disk process", "please report it");
}
