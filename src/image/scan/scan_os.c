/* What the files of an operating system say: os-release, package lists of dpkg, apk and rpm, host
 * name and network. */
#include <stdlib.h>
#include <string.h>

#include "scan_internal.h"

enum { PACKAGES_MAX = 200000, NETWORK_BYTES = 16384 };

/* Text of a hostile file as JSON wants it: bytes that are no UTF-8 become '?'. */
static json_t *safe_text(const char *from, size_t bytes)
{
	json_t *json = json_stringn(from, bytes);
	char *copy;

	if (json)
		return json;
	copy = malloc(bytes + 1);
	for (size_t n = 0; copy && n < bytes; n++)
		copy[n] = (signed char)from[n] >= 0x20 || from[n] == '\n' || from[n] == '\t'
				  ? from[n]
				  : '?';
	json = copy ? json_stringn(copy, bytes) : NULL;
	free(copy);
	return json;
}

/* Goes over lines; *at moves behind the line. */
static bool next_line(const char **at, const char *end, const char **ret, size_t *ret_bytes)
{
	const char *stop;

	if (*at >= end)
		return false;
	stop = memchr(*at, '\n', (size_t)(end - *at));
	*ret = *at;
	*ret_bytes = (size_t)((stop ? stop : end) - *at);
	*at = stop ? stop + 1 : end;
	return true;
}

static bool field(const char *line, size_t bytes, const char *key, const char **ret,
		  size_t *ret_bytes)
{
	size_t n = strlen(key);

	if (bytes < n || memcmp(line, key, n))
		return false;
	*ret = line + n;
	*ret_bytes = bytes - n;
	return true;
}

static void os_release(json_t *os, const char *text, size_t bytes)
{
	static const char *const keys[][2] = { { "ID=", "id" },
					       { "VERSION_ID=", "version" },
					       { "VERSION_CODENAME=", "codename" },
					       { "PRETTY_NAME=", "name" },
					       { "ID_LIKE=", "like" } };
	const char *at = text;
	const char *line, *value;
	size_t n, length;

	while (next_line(&at, text + bytes, &line, &n))
		for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
			if (!field(line, n, keys[k][0], &value, &length))
				continue;
			if (length >= 2 && (*value == '"' || *value == '\'') &&
			    value[length - 1] == *value) {
				value++;
				length -= 2;
			}
			json_object_set_new(os, keys[k][1], safe_text(value, length));
		}
}

struct package {
	const char *name, *version, *arch;
	size_t name_bytes, version_bytes, arch_bytes;
	bool installed;
};

static void add_package(json_t *all, struct package *package, const char *kind)
{
	if (package->name_bytes && package->version_bytes && package->installed &&
	    json_array_size(all) < PACKAGES_MAX) {
		json_t *json = json_object();

		json_object_set_new(json, "name", safe_text(package->name, package->name_bytes));
		json_object_set_new(json, "version",
				    safe_text(package->version, package->version_bytes));
		json_object_set_new(
			json, "arch",
			safe_text(package->arch ? package->arch : "", package->arch_bytes));
		json_object_set_new(json, "kind", json_string(kind));
		json_array_append_new(all, json);
	}
	*package = (struct package){ 0 };
}

void scan_add_package(json_t *all, const char *kind, const char *name, const char *version,
		      const char *arch)
{
	struct package package = {
		.name = name,
		.version = version,
		.arch = arch,
		.name_bytes = strlen(name),
		.version_bytes = strlen(version),
		.arch_bytes = strlen(arch),
		.installed = true,
	};

	add_package(all, &package, kind);
}

/* A list of packages: a field a line, an empty line between two. */
struct package_list {
	const char *kind, *path, *name, *version, *arch;
	const char *status; /* NULL: what is in the list is installed */
};

static const struct package_list package_lists[] = {
	{ .kind = "deb", .path = "/var/lib/dpkg/status",
	  .name = "Package: ", .version = "Version: ", .arch = "Architecture: ",
	  .status = "Status: " },
	{ .kind = "apk", .path = "/lib/apk/db/installed",
	  .name = "P:", .version = "V:", .arch = "A:" },
};

/* dpkg's "install ok installed", but for "not-installed". */
static bool says_installed(const char *status, size_t bytes)
{
	return bytes >= 9 && !memcmp(status + bytes - 9, "installed", 9) &&
	       (bytes < 13 || memcmp(status + bytes - 13, "not-", 4));
}

static void take_field(struct package *package, const struct package_list *list, const char *line,
		       size_t bytes)
{
	const char *status;
	size_t status_bytes;

	if (field(line, bytes, list->name, &package->name, &package->name_bytes))
		package->installed |= !list->status;
	else if (!field(line, bytes, list->version, &package->version, &package->version_bytes) &&
		 !field(line, bytes, list->arch, &package->arch, &package->arch_bytes) &&
		 list->status && field(line, bytes, list->status, &status, &status_bytes))
		package->installed = says_installed(status, status_bytes);
}

static void add_packages(json_t *all, const struct package_list *list, const char *text,
			 size_t bytes)
{
	struct package package = { 0 };
	const char *at = text;
	const char *line;
	size_t n;

	while (next_line(&at, text + bytes, &line, &n))
		if (n)
			take_field(&package, list, line, n);
		else
			add_package(all, &package, list->kind);
	add_package(all, &package, list->kind);
}

static void keep_text(const struct scan_reader *reader, const char *path, json_t *to,
		      const char *key)
{
	size_t bytes;
	char *text = reader->read(reader->context, path, &bytes);

	if (text && bytes < NETWORK_BYTES) {
		while (bytes && text[bytes - 1] == '\n')
			bytes--;
		json_object_set_new(to, key, safe_text(text, bytes));
	}
	free(text);
}

static bool read_release(const struct scan_reader *reader, json_t *os)
{
	static const char *const places[] = { "/etc/os-release", "/usr/lib/os-release" };
	bool found = false;
	size_t bytes;

	for (size_t n = 0; n < sizeof(places) / sizeof(places[0]) && !found; n++) {
		char *text = reader->read(reader->context, places[n], &bytes);

		found = text != NULL;
		if (text)
			os_release(os, text, bytes);
		free(text);
	}
	return found;
}

static void read_packages(const struct scan_reader *reader, json_t *all)
{
	static const char *const rpm_places[] = { "/var/lib/rpm/rpmdb.sqlite",
						  "/usr/lib/sysimage/rpm/rpmdb.sqlite" };
	bool found = false;
	size_t bytes;
	char *text;

	for (size_t n = 0; n < sizeof(package_lists) / sizeof(package_lists[0]); n++) {
		text = reader->read(reader->context, package_lists[n].path, &bytes);
		if (text)
			add_packages(all, &package_lists[n], text, bytes);
		free(text);
	}
	for (size_t n = 0; n < sizeof(rpm_places) / sizeof(rpm_places[0]) && !found; n++) {
		text = reader->read(reader->context, rpm_places[n], &bytes);
		found = text && scan_rpm(all, (uint8_t *)text, bytes);
		free(text);
	}
}

bool scan_os(struct scan_volume *volume, const struct scan_reader *reader)
{
	static const char *const networks[] = { "/etc/network/interfaces",
						"/etc/resolv.conf",
						"/etc/hosts",
						"/etc/sysconfig/network",
						"/etc/netplan/01-netcfg.yaml",
						"/etc/netplan/50-cloud-init.yaml",
						"/etc/systemd/network/10-eth.network" };
	json_t *os = json_object();
	json_t *network = json_object();
	const bool found = read_release(reader, os);

	read_packages(reader, json_object_get(volume->content, "packages"));
	keep_text(reader, "/etc/hostname", os, "hostname");
	for (size_t n = 0; n < sizeof(networks) / sizeof(networks[0]); n++)
		keep_text(reader, networks[n], network, strrchr(networks[n], '/') + 1);
	if (found)
		json_object_set(volume->about, "os", os);
	if (found && json_object_size(network) && !json_object_get(volume->about, "network"))
		json_object_set(volume->about, "network", network);
	json_decref(network);
	json_decref(os);
	return found;
}
