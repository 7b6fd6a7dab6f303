/*
 * Images: what is known of them read, a policy decided, questions to a catalog of many. usage:
 * image-bench DIRECTORY [IMAGES] Prints medians and 99th percentiles in microseconds; "cold" drops
 * each file's pages before it is opened.
 */
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "image/image.h"

enum { FILES = 2000, PACKAGES = 400, KINDS = 500, QUERIES = 2000 };

static double now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int order(const void *a, const void *b)
{
	return (*(const double *)a > *(const double *)b) -
	       (*(const double *)a < *(const double *)b);
}

static void report(const char *what, double *us, size_t count)
{
	double all = 0;

	for (size_t n = 0; n < count; n++)
		all += us[n];
	qsort(us, count, sizeof(*us), order);
	printf("%-44s median %8.1f us, p99 %8.1f us, %8.0f a second\n", what, us[count / 2],
	       us[count * 99 / 100], (double)count * 1e6 / all);
	fflush(stdout);
}

static json_t *make_about(unsigned n)
{
	static const char *const systems[] = { "debian", "ubuntu", "alpine", "fedora" };

	return json_pack("{s:i, s:{s:s, s:s}, s:[s, s], s:s, s:s, s:i}", "umbra-image", 1, "os",
			 "id", systems[n % 4], "name", systems[n % 4], "tags",
			 n % 10 ? "web" : "db", n % 1000 ? "plain" : "rare", "title",
			 n % 7 ? "a server" : "a desk", "expires",
			 n % 3 ? "2999-01-01" : "2020-01-01", "packages", PACKAGES);
}

static json_t *make_content(unsigned kind)
{
	json_t *packages = json_array();

	for (unsigned n = 0; n < PACKAGES; n++) {
		char name[32], version[32];

		snprintf(name, sizeof(name), n ? "package%u" : "openssl", n);
		snprintf(version, sizeof(version), "3.0.%u-%u", (kind * 7 + n) % 20, n % 3);
		json_array_append_new(packages,
				      json_pack("{s:s, s:s, s:s, s:s}", "name", name, "version",
						version, "arch", "amd64", "kind", "deb"));
	}
	return json_pack("{s:o, s:[s]}", "packages", packages, "kernels", "6.1.0-18-amd64");
}

static json_t *make_files(unsigned kind)
{
	json_t *files = json_object();

	for (unsigned n = 0; n < 1000; n++) {
		char path[64];

		snprintf(path, sizeof(path), "/usr/share/part%u/file%u", n % 50,
			 kind % 5 ? n : n + 100000 + kind);
		json_object_set_new(files, path, json_pack("[i, i]", n, n));
	}
	if (kind % 10 == 0)
		json_object_set_new(files, "/etc/nginx/nginx.conf", json_pack("[i, i]", 1, 1));
	return files;
}

/* ---- files ---- */

static void make_file(const char *path, unsigned n)
{
	const struct disk_create what = { .format = DISK_VHDX, .size_bytes = 1ull << 30 };
	const struct disk_options options = { .format = DISK_VHDX, .write = true };
	json_t *about = make_about(n);
	json_t *content = make_content(n);
	struct disk_error error;
	struct disk *disk;

	json_object_set_new(about, "policy",
			    json_pack("{s:s, s:[s], s:[s], s:[s]}", "not-after", "2999-01-01",
				      "hosts", "*", "minimum-patches", "openssl>=3.0.0",
				      "require-tags", n % 10 ? "web" : "db"));
	unlink(path);
	if (disk_create(path, &what, &error) || disk_open(path, &options, &disk, &error) ||
	    image_save_about(disk, about) || image_save_content(disk, content) ||
	    image_add_history(disk, "bench", "made", NULL) || disk_close(disk)) {
		fprintf(stderr, "image-bench: %s\n", error.text);
		exit(1);
	}
	json_decref(about);
	json_decref(content);
}

static void drop_pages(const char *directory, unsigned n)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/i%u.vhdx", directory, n);
	fd = open(path, O_RDONLY);
	fsync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
}

static void measure_files(const char *directory, bool cold, double *us)
{
	double begin;

	for (unsigned n = 0; n < FILES && cold; n++)
		drop_pages(directory, n);
	begin = now_us();
	for (unsigned n = 0; n < FILES; n++) {
		char path[PATH_MAX];
		struct disk_error error;
		struct disk *disk;
		json_t *about;

		if (cold) /* as indexing does */
			for (unsigned k = n ? n + 15 : 0; k < n + 16 && k < FILES; k++) {
				snprintf(path, sizeof(path), "%s/i%u.vhdx", directory, k);
				disk_prefetch(path, DISK_VHDX);
			}
		snprintf(path, sizeof(path), "%s/i%u.vhdx", directory, n);
		us[n] = now_us();
		if (disk_open(path,
			      &(struct disk_options){ .format = DISK_VHDX, .items_only = true },
			      &disk, &error) ||
		    image_load_about(disk, &about))
			exit(1);
		us[n] = now_us() - us[n];
		json_decref(about);
		disk_close(disk);
	}
	if (cold)
		printf("%-44s %.0f images a second, all in all\n",
		       "cold, with what comes read ahead", FILES * 1e6 / (now_us() - begin));
	report(cold ? "open an image and read what it says, cold"
		    : "open an image and read what it says, warm",
	       us, FILES);
}

/* Of an image that is open: what each decision and each row of a list costs. */
static void measure_open(const char *directory, double *us)
{
	struct disk_error error;
	char path[PATH_MAX];
	struct disk *disk;

	snprintf(path, sizeof(path), "%s/i1.vhdx", directory);
	if (disk_open(path, &(struct disk_options){ .format = DISK_VHDX }, &disk, &error))
		exit(1);
	for (unsigned n = 0; n < FILES; n++) {
		json_t *about;

		us[n] = now_us();
		if (image_load_about(disk, &about))
			exit(1);
		us[n] = now_us() - us[n];
		json_decref(about);
	}
	disk_close(disk);
	report("read what an open image says", us, FILES);
}

static void measure_policy(const char *directory, double *us)
{
	const struct image_policies none = { .user = NULL };

	for (unsigned n = 0; n < FILES; n++) {
		struct image_refusal refusal;
		struct disk_error error;
		char path[PATH_MAX];
		struct disk *disk;
		bool overridden;

		snprintf(path, sizeof(path), "%s/i%u.vhdx", directory, n);
		if (disk_open(path, &(struct disk_options){ .format = DISK_VHDX }, &disk, &error))
			exit(1);
		us[n] = now_us();
		if (image_admit(disk, ACTION_READ, &none, NULL, &overridden, &refusal)) {
			fprintf(stderr, "image-bench: refused: %s\n", refusal.text);
			exit(1);
		}
		us[n] = now_us() - us[n];
		disk_close(disk);
	}
	report("decide a policy of four rules, 400 packages", us, FILES);
}

/* ---- the catalog ---- */

static struct catalog *make_catalog(const char *directory, unsigned images)
{
	json_t *contents[KINDS], *files[KINDS];
	struct catalog *catalog;
	char path[PATH_MAX];
	double begin;

	snprintf(path, sizeof(path), "%s/catalog.db", directory);
	unlink(path);
	if (catalog_open(path, &catalog) || catalog_begin(catalog))
		exit(1);
	for (unsigned k = 0; k < KINDS; k++) {
		contents[k] = make_content(k);
		files[k] = make_files(k);
	}
	begin = now_us();
	for (unsigned n = 0; n < images; n++) {
		json_t *about = make_about(n);
		struct catalog_entry entry = { .identity = path,
					       .about = about,
					       .content = contents[n % KINDS],
					       .files = files[n % KINDS] };

		snprintf(path, sizeof(path), "/shelf/%u/image%u.vhdx", n / 1000, n);
		entry.path = path;
		if (catalog_put(catalog, &entry))
			exit(1);
		json_decref(about);
	}
	if (catalog_end(catalog))
		exit(1);
	printf("%-44s %u images, %.1f s\n", "catalog made", images, (now_us() - begin) / 1e6);
	return catalog;
}

static void measure_queries(struct catalog *catalog, double *us)
{
	static const char *const queries[] = {
		"os:debian pkg:\"openssl<3.0.15\" file:/etc/nginx/* tag:web not:expired",
		"tag:rare",
		"tag:web tag:db",
		"server not:expired",
		"pkg:openssl>=3.0.19 os:alpine",
		"file:/etc/nginx/nginx.conf or tag:rare",
		"pkg:package1* tag:rare",
		"file:*nginx* -tag:web",
	};
	double *all = us;

	for (unsigned query = 0; query < 8; query++) {
		for (unsigned n = 0; n < QUERIES / 8; n++) {
			struct catalog_found found;
			char why[256];

			*all = now_us();
			if (catalog_search(catalog, queries[query], 50, &found, why)) {
				fprintf(stderr, "image-bench: %s\n", why);
				exit(1);
			}
			*all = now_us() - *all;
			all++;
			if (!n)
				printf("  %8.0f us, %6lu found: %s\n", all[-1], found.count,
				       queries[query]);
			json_decref(found.rows);
			free(found.explain);
		}
	}
	report("query", us, QUERIES);
}

int main(int argc, char **argv)
{
	unsigned images = argc > 2 ? (unsigned)atoi(argv[2]) : 100000;
	double *us = calloc(FILES + QUERIES, sizeof(*us));
	struct catalog *catalog;

	if (argc < 2 || sodium_init() < 0) {
		fprintf(stderr, "usage: image-bench DIRECTORY [IMAGES]\n");
		return 64;
	}
	for (unsigned n = 0; n < FILES; n++) {
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%s/i%u.vhdx", argv[1], n);
		make_file(path, n);
	}
	for (int round = 0; round < 3; round++) {
		measure_files(argv[1], false, us);
		measure_files(argv[1], true, us);
	}
	measure_open(argv[1], us);
	measure_policy(argv[1], us);
	catalog = make_catalog(argv[1], images);
	measure_queries(catalog, us);
	catalog_close(catalog);
	free(us);
	return 0;
}
