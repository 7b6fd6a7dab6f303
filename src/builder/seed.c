/*
 * See seed.h. Keys are part of meta-data, so that they come beside whatever the user's data say;
 * the agent is installed by vendor-data, which the user's data may switch off. The instance has the
 * digest of all of it as its identifier: cloud-init does its work once for each other seed.
 */
#include "seed.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <jansson.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent_install.h"

enum { ID_BYTES = 8, PIECE_BYTES = 1 << 16, MODE = 0644, PROGRAM_MODE = 0755 };

/* ---- the texts; JSON is YAML, too ---- */

static json_t *keys_of(const struct seed *seed, crypto_generichash_state *state)
{
	json_t *keys = json_array();

	for (const char *const *key = seed->ssh_keys; key && *key; key++) {
		size_t bytes = strcspn(*key, "\r\n");

		crypto_generichash_update(state, (const uint8_t *)*key, bytes);
		if (!bytes || (*key)[bytes + strspn(*key + bytes, "\r\n")] ||
		    json_array_append_new(keys, json_stringn(*key, bytes))) {
			json_decref(keys);
			return NULL;
		}
	}
	return keys;
}

static char *meta_data(const struct seed *seed)
{
	uint8_t digest[crypto_generichash_BYTES];
	char id[2 * ID_BYTES + 1];
	crypto_generichash_state state;
	json_t *meta;
	json_t *keys;
	char *text;

	crypto_generichash_init(&state, NULL, 0, sizeof(digest));
	crypto_generichash_update(&state, seed->user_data, seed->user_data_bytes);
	keys = keys_of(seed, &state);
	crypto_generichash_final(&state, digest, sizeof(digest));
	sodium_bin2hex(id, sizeof(id), digest, ID_BYTES);
	meta = keys ? json_pack("{s:s+, s:o, s:s*}", "instance-id", "umbra-", id, "public-keys",
				keys, "local-hostname", seed->name)
		    : NULL;
	text = meta ? json_dumps(meta, JSON_INDENT(1)) : NULL;
	json_decref(meta);
	return text;
}

/* A script, which nothing that the user's data say takes the place of. */
static char *vendor_data(const struct seed *seed)
{
	static const char script[] =
		"#!/bin/sh\n"
		"cat >/etc/systemd/system/umbra-agent.service <<'END'\n"
		"%sEND\n"
		"mkdir -p /run/umbra-seed && "
		"mount -o ro \"$(findfs LABEL=cidata || findfs LABEL=CIDATA)\" /run/umbra-seed && "
		"install -D /run/umbra-seed/umbra-agent /usr/local/sbin/umbra-agent && "
		"mkdir -p /usr/local/bin && "
		"ln -sf ../sbin/umbra-agent /usr/local/bin/umbra-guest && "
		"umount /run/umbra-seed; systemctl enable --now umbra-agent\n";
	char *text = NULL;

	if (seed->agent_fd < 0)
		return strdup("");
	return asprintf(&text, script, agent_unit_text) < 0 ? NULL : text;
}

/* ---- the file system ---- */

static int add_head(struct archive *archive, const char *name, size_t bytes, unsigned mode)
{
	struct archive_entry *entry = archive_entry_new();
	int error;

	if (!entry)
		return -ENOMEM;
	archive_entry_set_pathname(entry, name);
	archive_entry_set_filetype(entry, AE_IFREG);
	archive_entry_set_perm(entry, (mode_t)mode);
	archive_entry_set_size(entry, (la_int64_t)bytes);
	error = archive_write_header(archive, entry) == ARCHIVE_OK ? 0 : -EIO;
	archive_entry_free(entry);
	return error;
}

static int add_text(struct archive *archive, const char *name, const void *text, size_t bytes)
{
	int error = add_head(archive, name, bytes, MODE);

	if (!error && bytes && archive_write_data(archive, text, bytes) != (la_ssize_t)bytes)
		error = -EIO;
	return error;
}

static int add_agent(struct archive *archive, int fd)
{
	static uint8_t piece[PIECE_BYTES];
	struct stat st;
	ssize_t got;
	int error = fstat(fd, &st) ? -errno : 0;

	if (!error)
		error = add_head(archive, "umbra-agent", (size_t)st.st_size, PROGRAM_MODE);
	for (off_t at = 0; !error && at < st.st_size; at += got) {
		got = pread(fd, piece, sizeof(piece), at);
		if (got <= 0 || archive_write_data(archive, piece, (size_t)got) != got)
			error = -EIO;
	}
	return error;
}

static struct archive *open_volume(int fd)
{
	struct archive *archive = archive_write_new();

	if (!archive)
		return NULL;
	if (archive_write_set_format_iso9660(archive) == ARCHIVE_OK &&
	    archive_write_set_options(archive, "volume-id=cidata") == ARCHIVE_OK &&
	    archive_write_open_fd(archive, fd) == ARCHIVE_OK)
		return archive;
	archive_write_free(archive);
	return NULL;
}

static int add_all(struct archive *archive, const struct seed *seed)
{
	char *meta = meta_data(seed);
	char *vendor = vendor_data(seed);
	int error = meta && vendor ? 0 : -EINVAL;

	if (!error)
		error = add_text(archive, "meta-data", meta, strlen(meta));
	if (!error)
		error = add_text(archive, "user-data", seed->user_data, seed->user_data_bytes);
	if (!error)
		error = add_text(archive, "vendor-data", vendor, strlen(vendor));
	if (!error && seed->agent_fd >= 0)
		error = add_agent(archive, seed->agent_fd);
	free(meta);
	free(vendor);
	return error;
}

int seed_write(int fd, const struct seed *seed)
{
	struct archive *archive = open_volume(fd);
	int error = archive ? add_all(archive, seed) : -ENOMEM;

	if (archive && archive_write_close(archive) != ARCHIVE_OK && !error)
		error = -EIO;
	if (archive)
		archive_write_free(archive);
	return error;
}
