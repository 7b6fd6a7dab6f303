/*
 * What a guest asks of a folder that is shared with it: requests one after the other, each of the
 * length that it says or of what is left. Whatever they are, a file beside the folder stays as it
 * is, none of its bytes is in an answer, and nothing else comes to be there.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "folder/folder_server.h"
#include "fuzz.h"

enum { REQUESTS_MOST = 64, BODY_BYTES = 256 };

static const char secret[] = "what nobody in a guest may read";

static void must(bool good)
{
	if (!good)
		abort();
}

static void put(const char *path, const char *text)
{
	const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !close(fd));
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)st;
	(void)kind;
	(void)where;
	return remove(path);
}

static void check_beside(void)
{
	char text[sizeof(secret)] = "";
	const int fd = open("secret", O_RDONLY);
	DIR *beside = opendir(".");
	unsigned entries = 0;

	must(fd >= 0 && read(fd, text, sizeof(text)) == (ssize_t)strlen(secret) &&
	     !strcmp(text, secret) && !close(fd));
	while (beside && readdir(beside))
		entries++;
	must(entries == 4 && !closedir(beside)); /* ".", "..", the folder and this file */
}

static int make_folder(void)
{
	static char place[] = "/tmp/umbra-fuzz-XXXXXX";
	static bool is_made;
	int fd;

	if (!is_made)
		must(mkdtemp(place) && !chdir(place));
	is_made = true;
	nftw("folder", remove_one, 8, FTW_DEPTH | FTW_PHYS);
	put("secret", secret);
	must(!mkdir("folder", 0700) && !mkdir("folder/sub", 0700));
	put("folder/file", "a file");
	put("folder/sub/inner", "a file of a folder");
	must(!symlink("../secret", "folder/out") && !symlink("/etc", "folder/etc") &&
	     !mkfifo("folder/pipe", 0600) && !symlink("sub", "folder/in"));
	fd = open("folder", O_PATH | O_DIRECTORY);
	must(fd >= 0);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	const int folder = make_folder();
	struct folder_server *server = folder_server_create(folder, bytes && data[0] & 1, false);
	static uint8_t request[FOLDER_MESSAGE_BYTES];
	const uint8_t *answer;

	must(server);
	for (unsigned n = 0; n < REQUESTS_MOST && bytes >= sizeof(struct fuse_in_header); n++) {
		uint32_t length;
		int got;

		memcpy(&length, data, sizeof(length));
		if (length < sizeof(struct fuse_in_header) || length > bytes)
			length = (uint32_t)bytes;
		if (length > sizeof(request))
			length = sizeof(request);
		memcpy(request, data, length);
		memcpy(request, &length, sizeof(length));
		got = folder_server_answer(server, request, length, &answer);
		must(got <= FOLDER_MESSAGE_BYTES + 16);
		must(got <= 0 || !memmem(answer, (size_t)got, secret, strlen(secret)));
		data += length;
		bytes -= length;
	}
	folder_server_destroy(server);
	close(folder);
	check_beside();
	return 0;
}

/* ---- seeds: some requests of a guest that looks around, and of one that climbs ---- */

static size_t add(uint8_t *to, uint32_t operation, uint64_t node, const void *head,
		  size_t head_bytes, const char *text, size_t text_bytes)
{
	const struct fuse_in_header in = { .len = (uint32_t)(sizeof(in) + head_bytes + text_bytes),
					   .opcode = operation,
					   .unique = operation,
					   .nodeid = node };

	memcpy(to, &in, sizeof(in));
	memcpy(to + sizeof(in), head, head_bytes);
	memcpy(to + sizeof(in) + head_bytes, text, text_bytes);
	return in.len;
}

/* A folder that is forgotten while a child of it is known, which is exchanged then. */
static size_t add_forgotten(uint8_t *to)
{
	static const char both[] = "inner\0file";
	const struct fuse_forget_in once = { .nlookup = 1 };
	const struct fuse_rename2_in exchange = { .newdir = 1, .flags = RENAME_EXCHANGE };
	size_t at = 0;

	at += add(to + at, FUSE_LOOKUP, 1, "", 0, "sub", 4); /* node 2 */
	at += add(to + at, FUSE_LOOKUP, 2, "", 0, "inner", 6);
	at += add(to + at, FUSE_LOOKUP, 1, "", 0, "file", 5);
	at += add(to + at, FUSE_FORGET, 2, &once, sizeof(once), "", 0);
	at += add(to + at, FUSE_RENAME2, 2, &exchange, sizeof(exchange), both, sizeof(both));
	at += add(to + at, FUSE_FORGET, 3, &once, sizeof(once), "", 0);
	at += add(to + at, FUSE_FORGET, 4, &once, sizeof(once), "", 0);
	for (unsigned n = 0; n < 3; n++)
		at += add(to + at, FUSE_LOOKUP, 1, "", 0, n ? "in" : "sub", n ? 3 : 4);
	return at;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static const char *const names[] = { "file", "sub", "out", "etc", "pipe", "..", "../secret",
					     "in", "new", "out/x", "/etc/passwd", "." };
	static const uint32_t with_name[] = { FUSE_LOOKUP, FUSE_UNLINK, FUSE_RMDIR };
	const size_t count = sizeof(names) / sizeof(names[0]);
	uint8_t body[BODY_BYTES] = { 0 };
	char two[64];
	size_t at = n % 4 ? 0 : add_forgotten(data);

	for (unsigned k = 0; k < 12; k++) {
		const char *name = names[(n + k) % count];
		const char *other = names[(n * 7 + k * 3) % count];
		const uint64_t node = 1 + (n + k) % 4;
		const int both = snprintf(two, sizeof(two), "%s%c%s", name, 0, other) + 1;

		body[0] = (uint8_t)(1 + k % 3); /* a handle, flags, or a folder */
		body[16] = 100;
		at += add(data + at, with_name[k / 9 % 3], node, "", 0, name, strlen(name) + 1);
		switch ((n + k) % 8) {
		case 0: at += add(data + at, FUSE_OPEN, node, body, 8, "", 0); break;
		case 1: at += add(data + at, FUSE_READ, node, body, 40, "", 0); break;
		case 2: at += add(data + at, FUSE_SYMLINK, 1, "", 0, two, (size_t)both); break;
		case 3: at += add(data + at, FUSE_RENAME, 1, body, 8, two, (size_t)both); break;
		case 4: at += add(data + at, FUSE_LINK, 1, body, 8, name, strlen(name) + 1); break;
		case 5:
			at += add(data + at, FUSE_CREATE, node, body, 16, name, strlen(name) + 1);
			break;
		case 6: at += add(data + at, FUSE_OPENDIR, node, body, 8, "", 0); break;
		default: at += add(data + at, FUSE_READDIRPLUS, node, body, 40, "", 0); break;
		}
	}
	return at;
}
