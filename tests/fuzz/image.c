/*
 * What images say, and what is on them. The first byte chooses: a query; changes of a disk with a
 * partition table and an ext4 file system, which is then scanned (in this process: what the sandbox
 * would contain must not crash either); changes of the stored sections of an image, which are then
 * read, verified, asked for policies; assignments; policies.
 */
#include <endian.h>
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sodium.h>
#include <unistd.h>

#include "image/image_internal.h"
#include "image/scan/scan_internal.h"
#include "../disk/memory_file.h"
#include "fuzz.h"

struct change { uint32_t offset; uint8_t bytes, value[11]; };

static struct memory_file *good;
static struct catalog *catalog;

/* ---- a disk with an ext4 file system, by e2fsprogs ---- */

static void fill(const char *directory, const char *name, const char *text)
{
	char path[200];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "w");
	if (!file)
		abort();
	fputs(text, file);
	fclose(file);
}

static struct memory_file *make_disk(void)
{
	static uint8_t all[4 << 20];
	char directory[] = "/tmp/umbra-fuzz-XXXXXX", command[500], path[200];
	struct memory_file *file = memory_new();
	FILE *from;

	if (!mkdtemp(directory))
		abort();
	snprintf(command, sizeof(command), "cd %s && mkdir -p r/etc r/var/lib/dpkg r/boot r/a/b/c",
		 directory);
	if (system(command))
		abort();
	fill(directory, "r/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='x'\n");
	fill(directory, "r/etc/hostname", "fuzz\n");
	fill(directory, "r/boot/vmlinuz-1", "kernel");
	fill(directory, "r/var/lib/dpkg/status",
	     "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n"
	     "Package: b\nStatus: install ok installed\nVersion: 2\n");
	snprintf(
		command, sizeof(command),
		"cd %s && truncate -s 3M fs && /sbin/mke2fs -q -t ext4 -N 64 -b 1024 -d r fs && "
		"truncate -s 4M disk && "
		"/sbin/sgdisk -n 1:2048:0 disk >/dev/null && dd if=fs of=disk bs=1M seek=1 "
		"conv=notrunc status=none",
		directory);
	if (system(command))
		abort();
	snprintf(path, sizeof(path), "%s/disk", directory);
	from = fopen(path, "r");
	if (!from || fread(all, 1, sizeof(all), from) != sizeof(all))
		abort();
	fclose(from);
	memory_put(file, 0, all, sizeof(all));
	snprintf(command, sizeof(command), "rm -r %s", directory);
	return system(command) ? NULL : file;
}

static void look_for_kernels(struct scan_volume *volume)
{
	struct boot_search found = { .root_subvolume = 0 };
	const struct scan_boot *best = &found.best;

	scan_ext_boot(volume, &found);
	if ((found.root_uuid[0] && strlen(found.root_uuid) != 36) ||
	    !memchr(best->version, 0, sizeof(best->version)) || (best->initrd && !best->kernel))
		abort();
	free(best->kernel);
	free(best->initrd);
}

static void scan(struct disk *disk)
{
	json_t *partitions = scan_partitions(disk);
	json_t *package;
	size_t n;

	json_array_foreach(partitions, n, package)
	{
		json_t *about = json_object();
		json_t *content = json_pack("{s:[], s:{}, s:[]}", "packages", "files", "kernels");
		const struct scan_options options = { .files = true, .digests = true };
		struct scan_volume volume = {
			.disk = disk,
			.offset = (uint64_t)json_integer_value(json_object_get(package, "start")),
			.options = &options,
			.about = about,
			.content = content,
			.bytes = (uint64_t)json_integer_value(json_object_get(package, "bytes"))
		};
		char label[64];
		const char *kind = scan_recognise(&volume, label);

		if (kind && !strcmp(kind, "ext")) {
			scan_ext(&volume);
			look_for_kernels(&volume);
		}
		json_decref(about);
		json_decref(content);
	}
	json_decref(partitions);
}

static void try_disk(const uint8_t *data, size_t bytes)
{
	struct memory_file *file = memory_copy(good);
	struct disk_error error;
	struct disk *disk;

	for (size_t at = 0; at + sizeof(struct change) <= bytes; at += sizeof(struct change)) {
		struct change change;

		memcpy(&change, data + at, sizeof(change));
		memory_put(file, change.offset % (4 << 20), change.value,
			   change.bytes % (sizeof(change.value) + 1));
	}
	if (!disk_open_file(memory_disk_file(file), "fuzz",
			    &(struct disk_options){ .format = DISK_RAW }, &disk, &error)) {
		scan(disk);
		disk_close(disk);
	}
	memory_free(file);
}

/* ---- sections ---- */

static void use_sections(struct disk *disk)
{
	const struct image_policies none = { .user = NULL };
	struct image_refusal refusal;
	json_t *json = NULL;
	const char *what;
	char key[65];
	size_t wrong;
	bool overridden;
	uint8_t *bytes = NULL;

	if (!image_load_about(disk, &json)) {
		image_get(json, "os.id");
		image_save_about(disk, json);
	}
	json_decref(json);
	if (!image_load_content(disk, &json))
		json_decref(json);
	if (!image_load_files(disk, &json))
		json_decref(json);
	if (!image_load_history(disk, &json)) {
		image_verify_history(json, &wrong);
		json_decref(json);
	}
	image_verify(disk, true, key, &what);
	for (int action = ACTION_READ; action <= ACTION_ANNOTATE; action++)
		image_admit(disk, (enum image_action)action, &none, action & 1 ? "reason" : NULL,
			    &overridden, &refusal);
	image_add_history(disk, "fuzz", "fuzzed", NULL);
	if (!image_fetch(disk, "x", &bytes, &wrong))
		free(bytes);
}

static void try_sections(const uint8_t *data, size_t bytes)
{
	const struct guid items[] = { ITEM_ABOUT, ITEM_CONTENT, ITEM_HISTORY, ITEM_SIGNATURE,
				      ITEM_FILES };
	struct memory_file *medium = memory_new();
	struct disk_file file = memory_disk_file(medium);
	const struct disk_create what = { .format = DISK_VHDX,
					  .size_bytes = 4 << 20,
					  .block_bytes = 1 << 20 };
	struct disk_error error;
	struct disk *disk;

	if (vhdx_create(&file, "fuzz", &what, NULL, &error) ||
	    disk_open_file(file, "fuzz",
			   &(struct disk_options){ .format = DISK_VHDX, .write = true }, &disk,
			   &error))
		abort();
	disk_write_item(disk, items[bytes ? data[0] % 5 : 0], DISK_ITEM_OF_FILE,
			bytes ? data + 1 : data, bytes ? bytes - 1 : 0);
	use_sections(disk);
	disk_close(disk);
	memory_free(medium);
}

static void try_assignment(const char *text)
{
	json_t *about = json_object();

	if (!image_set(about, text))
		image_get(about, "title");
	json_decref(about);
}

/* ---- a data base of rpm's ---- */

static uint8_t *rpm_base;
static size_t rpm_bytes;

static void make_rpm_base(void)
{
	static const struct {
		uint32_t tag, type, offset;
	} entries[] = {
		{ 1000, 6, 0 }, { 1001, 6, 6 }, { 1002, 6, 10 }, { 1003, 4, 12 }, { 1022, 6, 16 }
	};
	uint8_t header[8 + 5 * 16 + 24] = { 0 };
	sqlite3_int64 bytes;
	sqlite3_stmt *statement;
	sqlite3 *db;

	for (unsigned n = 0; n < 5; n++)
		for (unsigned k = 0; k < 4; k++) {
			uint32_t word = (const uint32_t[]){ entries[n].tag, entries[n].type,
							    entries[n].offset, 1 }[k];

			word = htobe32(word);
			memcpy(header + 8 + 16 * n + 4 * k, &word, 4);
		}
	memcpy(header, &(uint32_t){ htobe32(5) }, 4);
	memcpy(header + 4, &(uint32_t){ htobe32(24) }, 4);
	memcpy(header + 88, "alpha\0001.2\0003\0\0\0\0\2noarch", 23);
	if (sqlite3_open(":memory:", &db) ||
	    sqlite3_exec(db, "CREATE TABLE Packages(hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)",
			 NULL, NULL, NULL) ||
	    sqlite3_prepare_v2(db, "INSERT INTO Packages(blob) VALUES(?)", -1, &statement, NULL))
		abort();
	for (unsigned n = 0; n < 40; n++) {
		sqlite3_bind_blob(statement, 1, header, sizeof(header), SQLITE_STATIC);
		sqlite3_step(statement);
		sqlite3_reset(statement);
	}
	sqlite3_finalize(statement);
	rpm_base = sqlite3_serialize(db, "main", &bytes, 0);
	rpm_bytes = (size_t)bytes;
	sqlite3_close(db);
}

static void try_rpm(const uint8_t *data, size_t bytes)
{
	uint8_t *file;
	json_t *all = json_array();

	if (!rpm_base)
		make_rpm_base();
	file = malloc(rpm_bytes);
	memcpy(file, rpm_base, rpm_bytes);
	for (size_t at = 0; at + sizeof(struct change) <= bytes; at += sizeof(struct change)) {
		struct change change;

		memcpy(&change, data + at, sizeof(change));
		for (unsigned n = 0; n < change.bytes % (sizeof(change.value) + 1); n++)
			file[(change.offset + n) % rpm_bytes] = change.value[n];
	}
	scan_rpm(all, file, rpm_bytes);
	if (!bytes && json_array_size(all) != 40)
		abort();
	json_decref(all);
	free(file);
}

static void try_query(const char *text)
{
	struct catalog_found found;
	char why[256];

	catalog_search(catalog, text, 10, &found, why);
	json_decref(found.rows);
	free(found.explain);
}

static void begin(void)
{
	static const char *const packages[][2] = { { "openssl", "3.0.14-1" },
						   { "openssl", "3.0.15-1" },
						   { "bash", "5.2" } };

	good = make_disk();
	if (!good || sodium_init() < 0 || catalog_open(":memory:", &catalog))
		abort();
	for (int n = 0; n < 3; n++) {
		json_t *about =
			json_pack("{s:[s], s:{s:s}, s:s}", "tags", n ? "web" : "db", "os", "id",
				  "debian", "expires", n ? "2020-01-01" : "2999-01-01");
		json_t *content = json_pack("{s:[{s:s, s:s}]}", "packages", "name", packages[n][0],
					    "version", packages[n][1]),
		       *files = json_pack("{s:[i]}", "/etc/nginx/a", 1);
		char path[32];

		snprintf(path, sizeof(path), "/shelf/%d.vhdx", n);
		if (catalog_put(catalog, &(struct catalog_entry){ .path = path,
								  .identity = path,
								  .about = about,
								  .content = content,
								  .files = files }))
			abort();
		json_decref(about);
		json_decref(content);
		json_decref(files);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	char *text;

	if (!good)
		begin();
	if (!bytes)
		return 0;
	text = strndup((const char *)data + 1, bytes - 1);
	switch (data[0] % 9) {
	case 8: try_rpm(data + 1, bytes - 1); break;
	case 0:
	case 1:
	case 2: try_query(text); break;
	case 3: try_assignment(text); break;
	case 4: try_sections(data + 1, bytes - 1); break;
	default: try_disk(data + 1, bytes - 1); break;
	}
	free(text);
	return 0;
}

/* ---- seeds ---- */

static uint64_t random_state = 88172645463325252ull;

static uint64_t rnd(void)
{
	random_state ^= random_state << 13, random_state ^= random_state >> 7,
		random_state ^= random_state << 17;
	return random_state;
}

static size_t seed_text(uint8_t kind, const char *text, uint8_t *data)
{
	data[0] = kind;
	memcpy(data + 1, text, strlen(text));
	return strlen(text) + 1;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static const char *const queries[] = {
		"os:debian pkg:\"openssl<3.0.15\" file:/etc/nginx/* tag:web not:expired",
		"(a or -b) not:(tag:web)", "file:*x*", "pkg:*", "we*"
	};
	static const char *const sections[] = {
		"\0{\"umbra-image\":1,\"policy\":{\"not-after\":\"2030-01-01\",\"hosts\":[\"*\"],"
		"\"rights\":{\"read\":[\"*\"]},\"hardware\":{\"features\":[\"avx2\"]}}}",
		"\0{\"umbra-image\":1,\"expires\":\"2030-01-01T00:00:00Z\","
		"\"policy\":{\"minimum-patches\":[\"a>=1\"],\"require-tags\":[\"x\"],"
		"\"overridable\":[\"*\"]}}",
		"\2[{\"time\":\"2026-01-01T00:00:00Z\",\"event\":\"x\",\"previous\":\"\","
		"\"digest\":\"00\"}]",
		"\1UIMG\1\0\0\0\x10\0\0\0\0\0\0\0 compressed",
		"\3signature",
	};
	static const uint32_t places[] = { 0,        512,      1024,     0x100400, 0x100400,
					   0x100800, 0x100800, 0x102000, 0x110000, 0x140000 };
	size_t used = 1;

	if (n % 4 == 0)
		return seed_text(0, queries[rnd() % 5], data);
	if (n % 16 == 1)
		return seed_text(3, "policy.require-tags=[\"a\"]", data);
	if (n % 4 == 1) {
		const char *text = sections[rnd() % 5];

		data[0] = 4;
		data[1] = (uint8_t)text[0];
		memcpy(data + 2, text + 1, strlen(text + 1));
		return 2 + strlen(text + 1);
	}
	data[0] = rnd() % 3 ? 5 : 8;
	for (unsigned k = 0; k < rnd() % 6 + 1; k++, used += sizeof(struct change)) {
		struct change change = { .offset = places[rnd() % 10] +
						   (uint32_t)(rnd() % (rnd() % 2 ? 0x100 : 0x4000)),
					 .bytes = (uint8_t)(rnd() % 8 + 1) };

		for (unsigned i = 0; i < sizeof(change.value); i++)
			change.value[i] = (uint8_t)(rnd() & (rnd() % 2 ? 0xff : 7));
		memcpy(data + used, &change, sizeof(change));
	}
	return used;
}
