/* See agent_install.h. */
#include "agent_install.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "volume_writer.h"

/* Early, and whatever else fails: it is how people look at why. */
const char agent_unit_text[] =
	"[Unit]\n"
	"Description=Umbra agent\n"
	"DefaultDependencies=no\n"
	"Conflicts=shutdown.target\n"
	"Before=shutdown.target\n"
	"[Service]\n"
	"ExecStartPre=-modprobe hv_sock\n"
	"ExecStart=/usr/local/sbin/umbra-agent\n"
	"Restart=always\n"
	"[Install]\n"
	"WantedBy=sysinit.target\n";

static long read_file(void *context, void *to, size_t bytes)
{
	ssize_t got = read(*(int *)context, to, bytes);

	return got < 0 ? -errno : got;
}

int agent_install(struct volume_writer *writer, int agent_fd)
{
	static const char unit[] = "etc/systemd/system/umbra-agent.service";
	static const char wanted[] = "etc/systemd/system/sysinit.target.wants/umbra-agent.service";
	struct stat st;
	int error = fstat(agent_fd, &st) ? -errno : 0;

	if (error)
		return error;
	st.st_mode = S_IFREG | 0755;
	st.st_uid = 0;
	st.st_gid = 0;
	error = volume_add_file(writer, "usr/local/sbin/umbra-agent", &st, read_file, &agent_fd);
	if (!error)
		error = volume_add_text(writer, unit, 0644, agent_unit_text);
	st.st_mode = S_IFLNK | 0777;
	if (!error)
		error = volume_add_link(writer, "usr/local/bin/umbra-guest", &st,
					"../sbin/umbra-agent");
	return error ? error
		     : volume_add_link(writer, wanted, &st, "../umbra-agent.service");
}

/* Comments and blanks alone say nothing. */
static bool has_lines(const char *text)
{
	while (text && *text) {
		text += strspn(text, " \t\n");
		if (*text && *text != '#')
			return true;
		text += strcspn(text, "\n");
	}
	return false;
}

int root_install(struct volume_writer *writer)
{
	char *fstab = volume_read_text(writer, "etc/fstab");
	const bool is_there = has_lines(fstab);
	char uuid[VOLUME_UUID_BYTES];
	char line[64 + VOLUME_UUID_BYTES];

	free(fstab);
	if (is_there)
		return 0;
	volume_writer_uuid(writer, uuid);
	snprintf(line, sizeof(line), "UUID=%s / ext4 defaults 0 1\n", uuid);
	return volume_add_text(writer, "etc/fstab", 0644, line);
}
