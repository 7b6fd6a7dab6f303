/* See seed_option.h. */
#include "seed_option.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "helper_program.h"
#include "control/names.h"

enum { KEY_BYTES = 16 << 10, WORDS_BEFORE_KEYS = 5 };

int seed_option_add_key(struct seed_options *options, const char *path)
{
	if (options->keys == SEED_KEYS)
		return complain(EXIT_USAGE, "more than 16 keys", path, "leave some out");
	options->key[options->keys++] = path;
	return 0;
}

bool seed_is_wanted(const struct seed_options *options)
{
	return options->user_data || options->keys;
}

int seed_option_plan(const struct seed_options *options, const char *name,
		     struct disk_plan *disks)
{
	struct disk_choice *choice = &disks->disk[disks->count];
	const char *what = options->user_data ? "--user-data" : "--ssh-key";

	if (!seed_is_wanted(options))
		return 0;
	if (!name)
		return complain(EXIT_USAGE, "it needs a name", what, "add --name NAME");
	if (disks->count == BLOCK_DISKS)
		return complain(EXIT_USAGE, "more than 16 disks", what, "leave one out");
	*choice = (struct disk_choice){ .format = DISK_RAW, .read_only = true };
	if (name_seed_path(name, choice->path, sizeof(choice->path)))
		return complain(EXIT_USAGE, "not a name, or no place for it", name,
				"see umbra run --help");
	disks->count++;
	return 0;
}

static int read_key(const char *path, char text[KEY_BYTES])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, KEY_BYTES - 1);
	int error = got < 0 ? errno : 0;

	if (fd >= 0)
		close(fd);
	if (error)
		return complain(EXIT_UNUSABLE, strerror(error), path,
				"name a file of a public key, NAME.pub");
	text[got] = 0;
	if (strncmp(text, "ssh-", 4) && strncmp(text, "ecdsa-", 6) && strncmp(text, "sk-", 3))
		return complain(EXIT_UNUSABLE, "not a public key of ssh's", path,
				"name a file of a public key, NAME.pub");
	return 0;
}

/* 0600: what is in it may be secret. */
static int make_file(const char *path)
{
	int fd = unlink(path) && errno != ENOENT
			 ? -1
			 : open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return complain(EXIT_UNUSABLE, strerror(errno), path, "make room there");
	close(fd);
	return 0;
}

int seed_option_write(const struct seed_options *options, const char *name)
{
	static char texts[SEED_KEYS][KEY_BYTES];
	const char *words[WORDS_BEFORE_KEYS + SEED_KEYS + 1] = { "seed" };
	char path[PLAN_PATH_BYTES];
	char agent[PATH_MAX];
	int code = 0;

	if (!seed_is_wanted(options) || name_seed_path(name, path, sizeof(path)))
		return 0;
	for (unsigned n = 0; n < options->keys && !code; n++) {
		code = read_key(options->key[n], texts[n]);
		words[WORDS_BEFORE_KEYS + n] = texts[n];
	}
	words[1] = path;
	words[2] = name;
	words[3] = options->user_data ? options->user_data : "-";
	words[4] = helper_program_find("umbra-agent", agent, sizeof(agent)) ? "-" : agent;
	if (!code)
		code = make_file(path);
	return code ? code : helper_builder_run(words);
}
