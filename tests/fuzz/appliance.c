/*
 * Packages of disks: descriptors (XML), manifests, and archives in a file in memory. The first byte
 * chooses which; a text's input is what is changed in a good one. Sums of the archive's heads are
 * made anew, so that what they guard is reached.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "appliance/package.h"
#include "fuzz.h"

struct change {
	uint16_t offset;
	uint8_t how, bytes, value[28];
};
enum kind { DESCRIPTOR, MANIFEST, ARCHIVE, KINDS };
enum { TEXT_MAX = 8192, TAR_BLOCK = 512, TAR_SUM_AT = 148, TAR_SUM_BYTES = 8, INSERT = 1, CUT = 2 };
static const char good_descriptor[] =
	"<?xml version=\"1.0\"?>\n<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" "
	"xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\"><References>"
	"<File ovf:href=\"a.vmdk\" ovf:id=\"f1\" ovf:size=\"4096\"/>"
	"<File ovf:href=\"b.vmdk\" ovf:id=\"f2\"/></References><DiskSection><Info/>"
	"<Disk ovf:capacity=\"8\" ovf:capacityAllocationUnits=\"byte * 2^20\" ovf:diskId=\"d\" "
	"ovf:fileRef=\"f1\" ovf:format=\"http://x/vmdk.html#streamOptimized\"/>"
	"<Disk ovf:capacity=\"8388608\" ovf:diskId=\"e\" ovf:fileRef=\"f2\"/></DiskSection>"
	"<VirtualSystem ovf:id=\"m\"><Info/></VirtualSystem></Envelope>\n";
static const char good_manifest[] =
	"SHA1(a.vmdk)= 0123456789abcdef0123456789abcdef01234567\n"
	"SHA256(b.vmdk)= "
	"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n";
static uint8_t archive[TEXT_MAX];
static size_t archive_bytes;
static int archive_fd = -1;

static void make_archive(void)
{
	const struct package_file files[] = {
		{ .name = "m.ovf", .text = good_descriptor, .bytes = sizeof(good_descriptor) - 1 },
		{ .name = "m.mf", .text = good_manifest, .bytes = sizeof(good_manifest) - 1 },
		{ .name = "a.vmdk", .text = good_manifest, .bytes = 100 },
	};
	struct ovf_error error;
	ssize_t got;

	archive_fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (archive_fd < 0 || package_write(archive_fd, files, 3, &error))
		abort();
	got = pread(archive_fd, archive, sizeof(archive), 0);
	if (got <= 0)
		abort();
	archive_bytes = (size_t)got;
	while (archive_bytes > 2 * TAR_BLOCK && !archive[archive_bytes - 1])
		archive_bytes--;
	archive_bytes = (archive_bytes / TAR_BLOCK + 3) * TAR_BLOCK;
}

static size_t change_text(char text[TEXT_MAX], size_t bytes, const struct change *change)
{
	size_t at = bytes ? change->offset % bytes : 0;
	size_t count = change->bytes % (sizeof(change->value) + 1);

	if (change->how == CUT)
		return at;
	if (change->how == INSERT && bytes + count <= TEXT_MAX) {
		memmove(text + at + count, text + at, bytes - at);
		bytes += count;
	}
	if (at + count <= bytes)
		memcpy(text + at, change->value, count);
	return bytes;
}

static int visit(void *context, const char *name, uint64_t bytes, unsigned number,
		 struct package_place *place)
{
	static char text[TEXT_MAX];

	(void)context;
	(void)name;
	(void)bytes;
	if (number % 2 == 0) {
		place->text = text;
		place->room = sizeof(text);
	}
	return 0;
}

static int done(void *context, const char *name, const struct package_place *place)
{
	(void)context;
	if (!ovf_is_plain(name) || place->bytes > TEXT_MAX)
		abort();
	return 0;
}

static void seal(uint8_t *bytes, size_t count)
{
	for (size_t at = 0; at + TAR_BLOCK <= count; at += TAR_BLOCK) {
		unsigned sum = 0;
		char text[TAR_SUM_BYTES];

		if (memcmp(bytes + at + 257, "ustar", 5))
			continue;
		memset(bytes + at + TAR_SUM_AT, ' ', TAR_SUM_BYTES);
		for (size_t n = 0; n < TAR_BLOCK; n++)
			sum += bytes[at + n];
		snprintf(text, sizeof(text), "%06o", sum & 0777777);
		memcpy(bytes + at + TAR_SUM_AT, text, 7);
	}
}

/* What is refused has a reason, and a place within what was read. */
static int check_error(int result, const struct ovf_error *error, size_t bytes)
{
	if (result && result != -ENOMEM &&
	    (!error->part || !error->text[0] || error->offset > bytes))
		abort();
	return result;
}

static void try_archive(char *bytes, size_t count)
{
	struct ovf_error error;

	seal((uint8_t *)bytes, count);
	if (ftruncate(archive_fd, 0) || pwrite(archive_fd, bytes, count, 0) != (ssize_t)count ||
	    lseek(archive_fd, 0, SEEK_SET))
		abort();
	check_error(package_read(archive_fd, visit, done, NULL, &error), &error, count);
}

static void try_descriptor(const char *text, size_t bytes)
{
	static struct ovf ovf;
	struct ovf_error error;
	char *again;

	if (check_error(ovf_read(text, bytes, &ovf, &error), &error, bytes))
		return;
	for (unsigned n = 0; n < ovf.disks; n++)
		if ((*ovf.disk[n].file && !ovf_is_plain(ovf.disk[n].file)) ||
		    !ovf.disk[n].size_bytes)
			abort();
	again = ovf_text(&ovf);
	free(again);
}

static void try_manifest(const char *text, size_t bytes)
{
	static struct ovf_manifest manifest;
	struct ovf_error error;

	if (check_error(ovf_manifest_read(text, bytes, &manifest, &error), &error, bytes))
		return;
	for (unsigned n = 0; n < manifest.sums; n++)
		if (!ovf_is_plain(manifest.sum[n].file) ||
		    !ovf_manifest_of(&manifest, manifest.sum[n].file))
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static char text[TEXT_MAX];
	enum kind kind = bytes ? data[0] % KINDS : 0;
	const void *from[KINDS] = { good_descriptor, good_manifest, archive };
	size_t count;

	if (archive_fd < 0)
		make_archive();
	count = (size_t[KINDS]){ sizeof(good_descriptor) - 1, sizeof(good_manifest) - 1,
				 archive_bytes }[kind];
	memcpy(text, from[kind], count);
	for (size_t at = 1; at + sizeof(struct change) <= bytes; at += sizeof(struct change)) {
		struct change change;

		memcpy(&change, data + at, sizeof(change));
		count = change_text(text, count, &change);
	}
	if (kind == DESCRIPTOR)
		try_descriptor(text, count);
	else if (kind == MANIFEST)
		try_manifest(text, count);
	else
		try_archive(text, count);
	return 0;
}

static uint64_t rnd(void)
{
	static uint64_t random = 88172645463325252ull;

	random ^= random << 13;
	random ^= random >> 7;
	random ^= random << 17;
	return random;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static const char *const words[] = {
		"<!DOCTYPE x [<!ENTITY a \"b",
		"<File ovf:href=\"../x\"/>",
		"&a;",
		"ovf:size=\"99999999999999999",
		"<VirtualSystem/>",
		"<Disk/>",
		"byte * 2^99",
		"ovf:compression=\"gzip\" ",
		"SHA1(x)= 00\n",
		"<![CDATA[",
		"GigaBytes",
		"SHA256(",
		"\xff\xff\xff\xff\xff\xff\xff",
		"ustar  ",
		"</Envelope>",
		"00000000000x",
		"\x80\x7f\xff\xff\xff\xff\xff\xff",
		"1 path=/x\n",
	};
	size_t used = 1;

	data[0] = (uint8_t)(rnd() % KINDS);
	for (unsigned k = 0; k < n % 5 + 1; k++, used += sizeof(struct change)) {
		const char *word = words[rnd() % (sizeof(words) / sizeof(words[0]))];
		struct change change = { .offset = (uint16_t)rnd(),
					 .how = (uint8_t)(rnd() % 8 ? rnd() % 2 : CUT),
					 .bytes = (uint8_t)strlen(word) };

		memcpy(change.value, word, strnlen(word, sizeof(change.value)));
		if (rnd() & 1) {
			change.how = 0;
			change.bytes = 1 + rnd() % 4;
			for (unsigned i = 0; i < change.bytes; i++)
				change.value[i] = (uint8_t)rnd();
		}
		if (data[0] == ARCHIVE && rnd() & 1) /* within a head */
			change.offset = (uint16_t)(rnd() % 9 * TAR_BLOCK + rnd() % 350);
		memcpy(data + used, &change, sizeof(change));
	}
	return used;
}
