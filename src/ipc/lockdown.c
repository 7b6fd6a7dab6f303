/* See lockdown.h. */
#include "lockdown.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "call_rules.h"
#include "spawn.h"

/* ---- Landlock ---- */

/*
 * struct landlock_ruleset_attr as version 6 has it; older kernels take as much of it as they know.
 */
struct ruleset {
	uint64_t files, net, scoped;
};

/* Newer than the headers of some hosts. */
enum {
	FILES_V1 = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1,
	FILES_REFER = 1 << 13,
	FILES_TRUNCATE = 1 << 14,
	FILES_IOCTL = 1 << 15,
	NET_BIND = 1,
	NET_BIND_CONNECT = 3,
	SCOPED_ABSTRACT_SOCKETS = 1,
	SCOPED_SIGNALS = 2,
};

int lockdown_landlock_version(void)
{
	long version =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return version > 0 ? (int)version : 0;
}

static struct ruleset everything(int version, const struct role_description *role)
{
	struct ruleset all = { .files = FILES_V1 };

	if (version >= 2)
		all.files |= FILES_REFER;
	if (version >= 3)
		all.files |= FILES_TRUNCATE;
	if (version >= 4)
		all.net = role->connects ? NET_BIND : NET_BIND_CONNECT;
	if (version >= 5)
		all.files |= FILES_IOCTL;
	if (version >= 6)
		all.scoped = SCOPED_ABSTRACT_SOCKETS | (role->signals_nobody ? SCOPED_SIGNALS : 0);
	return all;
}

static size_t ruleset_bytes(int version)
{
	if (version >= 6)
		return sizeof(struct ruleset);
	return version >= 4 ? offsetof(struct ruleset, scoped) : offsetof(struct ruleset, net);
}

static void allow_folders(int ruleset, int version, const int *folders)
{
	for (; folders && *folders >= 0; folders++) {
		struct landlock_path_beneath_attr files = {
			.allowed_access =
				LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE |
				LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
				LANDLOCK_ACCESS_FS_REMOVE_FILE |
				(version >= 3 ? FILES_TRUNCATE : 0),
			.parent_fd = *folders,
		};

		syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &files, 0);
	}
}

/* Here and now, be it the host's or a copy. */
static void allow_resolver(int ruleset)
{
	struct landlock_path_beneath_attr file = {
		.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE,
		.parent_fd = open("/etc/resolv.conf", O_PATH | O_CLOEXEC),
	};

	if (file.parent_fd < 0)
		return;
	syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &file, 0);
	close(file.parent_fd);
}

static void allow_file(int ruleset, int version, const struct lockdown_file *file)
{
	struct landlock_path_beneath_attr rule = {
		.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE,
		.parent_fd = file->fd,
	};

	if (file->access == LOCKDOWN_WRITE)
		rule.allowed_access |=
			LANDLOCK_ACCESS_FS_WRITE_FILE | (version >= 3 ? FILES_TRUNCATE : 0);
	if (file->access == LOCKDOWN_READ_BENEATH || file->access == LOCKDOWN_MEET)
		rule.allowed_access |= LANDLOCK_ACCESS_FS_READ_DIR;
	if (file->access == LOCKDOWN_MEET)
		rule.allowed_access |=
			LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_REMOVE_FILE;
	if (file->access == LOCKDOWN_EXECUTE)
		rule.allowed_access |= LANDLOCK_ACCESS_FS_EXECUTE;
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0)) {
		/* a place may be a file, which has nothing to list */
		rule.allowed_access &= ~(uint64_t)LANDLOCK_ACCESS_FS_READ_DIR;
		syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
	}
}

/* -1: a kernel without Landlock, where the list of calls holds alone. */
static int ruleset_begin(const struct role_description *role, int version)
{
	struct ruleset all = everything(version, role);

	if (!version)
		return -1;
	return (int)syscall(SYS_landlock_create_ruleset, &all, ruleset_bytes(version), 0);
}

static void ruleset_enter(int ruleset)
{
	if (ruleset < 0)
		return;
	syscall(SYS_landlock_restrict_self, ruleset, 0);
	close(ruleset);
}

static void take_files(const struct role_description *role, const int *folders)
{
	int version = lockdown_landlock_version();
	int ruleset = ruleset_begin(role, version);

	if (ruleset >= 0)
		allow_folders(ruleset, version, folders);
	if (ruleset >= 0 && role->keeps_resolver)
		allow_resolver(ruleset);
	ruleset_enter(ruleset);
}

static void take_other_files(const struct role_description *role, const struct lockdown_file *files,
			     unsigned count)
{
	int version = lockdown_landlock_version();
	int ruleset = ruleset_begin(role, version);

	for (unsigned n = 0; n < count && ruleset >= 0; n++)
		allow_file(ruleset, version, &files[n]);
	ruleset_enter(ruleset);
}

/* ---- capabilities ---- */

/* All but these of the first 32, as far as they are held. */
static int take_capabilities(uint32_t kept)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct held[_LINUX_CAPABILITY_U32S_3] = { { 0 } };
	struct __user_cap_data_struct left[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

	if (kept && syscall(SYS_capget, &head, held))
		return -errno;
	left[0].effective = left[0].permitted = held[0].permitted & kept;
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (unsigned long capability = 0; capability < 64; capability++)
		prctl(PR_CAPBSET_DROP, capability, 0, 0,
		      0); /* not permitted, or unknown: it is not held either */
	return syscall(SYS_capset, &head, left) ? -errno : 0;
}

int lockdown_capabilities(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -errno : take_capabilities(0);
}

enum { ROOT_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC, RESOLVER_BYTES = 4096 };

/*
 * In a mount namespace of its own: an empty file system, that cannot be written, becomes the root,
 * and everything else goes. Holds also where there is no Landlock, and for what Landlock does not
 * know: asking whether a file is there.
 */
static const char root_place[] = "/tmp"; /* where the empty file system comes into being */

static bool mount_empty(void)
{
	return !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	       !mount("none", root_place, "tmpfs", MS_RDONLY | ROOT_FLAGS, "size=4k,nr_inodes=1");
}

static void take_root(void)
{
	if (!mount_empty() || chdir(root_place))
		return;
	if (!syscall(SYS_pivot_root, ".", "."))
		umount2(".", MNT_DETACH);
}

static void copy_file(int from, const char *to)
{
	int fd = from < 0 ? -1 : open(to, COPY_FLAGS, COPY_MODE);
	char bytes[RESOLVER_BYTES];
	ssize_t got;

	while (fd >= 0 && (got = read(from, bytes, sizeof(bytes))) > 0)
		if (write(fd, bytes, (size_t)got) != got)
			break;
	close(fd);
}

/* The same, with a copy of the one file that a resolver reads; it is the working directory then. */
static bool mount_resolver(void)
{
	static const char file[] = "etc/resolv.conf";
	int from = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC);

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", root_place, "tmpfs", ROOT_FLAGS, "size=64k,nr_inodes=4") ||
	    chdir(root_place)) {
		close(from);
		return false;
	}
	if (!mkdir("etc", COPY_FOLDER_MODE))
		copy_file(from, file);
	close(from);
	mount("none", ".", NULL, MS_REMOUNT | MS_RDONLY | ROOT_FLAGS, NULL);
	return true;
}

static void take_root_but_resolver(void)
{
	if (mount_resolver() && !syscall(SYS_pivot_root, ".", "."))
		umount2(".", MNT_DETACH);
}

/*
 * The same for later, when Landlock lets nobody mount any more: a file system that is empty, and
 * mounted nowhere. -1: not permitted.
 */
static int make_root(void)
{
	int root;

	if (!mount_empty())
		return -1;
	root = open(root_place, O_PATH | O_DIRECTORY | O_CLOEXEC);
	umount2(root_place, MNT_DETACH);
	return root;
}

/*
 * In a namespace of users whose own user is not named there no other can be made: who begins in one
 * (role_description.spawn_namespaces) does without. False: the host does not permit it, one layer
 * less.
 */
static bool enter_namespaces(int namespaces)
{
	return namespaces && (!unshare(namespaces) || !unshare(namespaces & ~CLONE_NEWUSER));
}

static void write_text(const char *path, const char *text)
{
	const int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		errno = 0; /* what needs it fails then */
	close(fd);
}

/* Who has no name in a namespace of users makes no file in what is mounted there. */
static bool enter_mounts_by_name(void)
{
	const unsigned user = geteuid();
	const unsigned group = getegid();
	char text[32];

	if (!unshare(CLONE_NEWNS))
		return true;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
		return false;
	snprintf(text, sizeof(text), "%u %u 1", user, user);
	write_text("/proc/self/uid_map", text);
	write_text("/proc/self/setgroups", "deny");
	snprintf(text, sizeof(text), "%u %u 1", group, group);
	write_text("/proc/self/gid_map", text);
	return true;
}

/*
 * The same for processes that are started later, by one that may not mount: at
 * grant_fd(GRANT_ROOT), or nothing is there. Its namespaces go with a child that shares descriptors
 * with this process.
 */
static void leave_root(bool keeps_resolver)
{
	const pid_t child = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0);
	int root;

	if (child > 0)
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			;
	if (child)
		return;
	if (!enter_mounts_by_name())
		_exit(1);
	if (keeps_resolver)
		root = mount_resolver() ? open(".", O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	else
		root = make_root();
	if (root >= 0)
		dup3(root, grant_fd(GRANT_ROOT), O_CLOEXEC);
	close(root);
	_exit(0);
}

/* One that was left for this process. */
static bool has_root(const struct role_description *role)
{
	struct stat st;

	return role->grants & GRANT(GRANT_ROOT) && !fstat(grant_fd(GRANT_ROOT), &st) &&
	       S_ISDIR(st.st_mode);
}

/* Nothing leads out of it: no directory elsewhere is open, and none can be opened. */
static void enter_root(int root)
{
	if (fchdir(root) || chroot("."))
		errno = 0; /* one layer less */
	close(root);
}

bool lockdown_has_namespaces(void)
{
	int status = 1;
	pid_t child = fork();

	if (!child)
		_exit(unshare(role_describe(ROLE_BROKER)->own_namespaces) ? 1 : 0);
	return child > 0 && waitpid(child, &status, 0) == child && !status;
}

static void choose_root(const struct role_description *role)
{
	if (role->keeps_resolver)
		take_root_but_resolver();
	else if (role->empties_root)
		take_root();
}

/* It holds nothing but its line, and ends when nobody else does. */
static _Noreturn void be_room(enum role role, int line)
{
	const struct role_description *description = role_describe(role);
	char byte = 1;

	if (dup2(line, 0) || syscall(SYS_close_range, 1, ~0u, 0) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    !enter_namespaces(description->own_namespaces))
		_exit(1);
	choose_root(description);
	take_files(description, NULL);
	if (take_capabilities(0) || lockdown(role) || write(0, &byte, 1) != 1)
		_exit(1);
	while (read(0, &byte, 1) > 0)
		;
	_exit(0);
}

int lockdown_make_room(enum role role, int *ret_line)
{
	int line[2];
	int room;
	char byte;
	pid_t pid;

	assert(role_describe(role)->grants & GRANT(GRANT_ROOM));
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line))
		return -errno;
	pid = spawn_fork(&room);
	if (!pid)
		be_room(role, line[1]);
	close(line[1]);
	if (pid > 0 && read(line[0], &byte, 1) == 1) {
		*ret_line = line[0];
		return room;
	}
	close(line[0]);
	if (pid > 0) {
		close(room);
		waitpid(pid, NULL, 0);
	}
	return pid < 0 ? (int)pid : -EPERM;
}

/*
 * False: there is none, or the host does not permit it, as where it gives nobody a namespace of
 * users. Whether it is entered or not, its line is nobody's who stays.
 */
static bool enter_room(const struct role_description *role)
{
	bool enters;

	if (!(role->grants & GRANT(GRANT_ROOM)))
		return false;
	enters = !setns(grant_fd(GRANT_ROOM), role->own_namespaces);
	close(grant_fd(GRANT_ROOM));
	close(grant_fd(GRANT_ROOM_LINE));
	return enters;
}

static void enter_own(const struct role_description *role)
{
	const bool enters = enter_namespaces(role->own_namespaces);

	if (has_root(role))
		enter_root(grant_fd(GRANT_ROOT));
	else if (enters)
		choose_root(role);
}

int lockdown_before_threads(enum role role, const int *folders)
{
	const struct role_description *description = role_describe(role);

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	if (!enter_room(description))
		enter_own(description);
	take_files(description, folders);
	return take_capabilities(0);
}
int lockdown_in_folder(enum role role, int folder)
{
	const struct role_description *description = role_describe(role);

	assert(description->empties_root);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || fchdir(folder))
		return -errno;
	close(folder);
	enter_namespaces(description->own_namespaces);
	if (chroot("."))
		errno = 0; /* one layer less */
	take_files(description, NULL);
	return take_capabilities(0);
}

/* Reading, and where it writes everything but what makes special files. */
static void take_all_but_folder(const struct role_description *role, int folder, bool writes)
{
	const int version = lockdown_landlock_version();
	const int ruleset = ruleset_begin(role, version);
	struct landlock_path_beneath_attr rule = {
		.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
		.parent_fd = folder,
	};

	if (writes)
		rule.allowed_access |=
			LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |
			LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_SYM |
			LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
			(version >= 2 ? FILES_REFER : 0) | (version >= 3 ? FILES_TRUNCATE : 0);
	if (ruleset >= 0)
		syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
	ruleset_enter(ruleset);
}

int lockdown_on_folder(enum role role, int folder, bool writes)
{
	const struct role_description *description = role_describe(role);

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || fchdir(folder))
		return -errno;
	enter_namespaces(description->own_namespaces);
	if (chroot("."))
		errno = 0; /* one layer less */
	take_all_but_folder(description, folder, writes);
	return take_capabilities(0);
}

/* ---- system calls ---- */

static int load_filter(const struct call_filter *filter)
{
	struct sock_fprog program;
	int error = call_filter_compile(filter, &program);

	return error ? error : call_filter_load(&program);
}

static int load_calls(const struct role_call *call, uint32_t otherwise)
{
	struct call_filter *filter = call_rules_make(call, otherwise);
	int error = filter ? load_filter(filter) : -ENOMEM;

	call_filter_free(filter);
	return error;
}

int lockdown(enum role role)
{
	return load_calls(role_describe(role)->calls, SECCOMP_RET_KILL_PROCESS);
}

/* ---- in two steps ---- */

/*
 * Root opens files of others by his capabilities, which he would not have over them in a namespace
 * of users of his own: that comes afterwards. Nobody else has any.
 */
static int namespaces_for_opening(const struct role_description *role)
{
	return geteuid() ? role->own_namespaces : role->own_namespaces & ~CLONE_NEWUSER;
}

static uint32_t capabilities_for_opening(void)
{
	const uint32_t leaves = 1u << CAP_SYS_CHROOT; /* enter_root() */

	return geteuid() ? leaves : leaves | 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH;
}

int lockdown_for_opening(enum role role, const struct lockdown_file *files, unsigned count,
			 int *ret_root)
{
	const struct role_description *description = role_describe(role);
	int error;

	assert(description->opening_calls);
	*ret_root = -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	if (enter_namespaces(namespaces_for_opening(description)) && description->empties_root)
		*ret_root = make_root();
	take_other_files(description, files, count);
	error = take_capabilities(capabilities_for_opening());
	return error ? error : load_calls(description->opening_calls, SECCOMP_RET_ERRNO | EPERM);
}

int lockdown_after_opening(enum role role, int root)
{
	const struct role_description *description = role_describe(role);

	enter_namespaces(description->own_namespaces);
	if (root >= 0)
		enter_root(root);
	take_files(description, NULL);
	return take_capabilities(0);
}

/* ---- of who starts others ---- */

/* One call of no list: who was started by one that has it, has it already. */
static bool has_starters_list(void) { return syscall(SYS_getpgrp) < 0; }

/* Where the program's interpreter and libraries lie, for who executes it again. */
static int allow_object(struct dl_phdr_info *object, size_t bytes, void *ruleset)
{
	struct lockdown_file file = { .access = LOCKDOWN_READ };
	const char *path = object->dlpi_name;

	(void)bytes;
	/* of the program, which has no name here; a library may say one, too */
	for (unsigned n = 0; n < object->dlpi_phnum && !*object->dlpi_name; n++)
		if (object->dlpi_phdr[n].p_type == PT_INTERP) {
			path = (const char *)(object->dlpi_addr + object->dlpi_phdr[n].p_vaddr);
			file.access = LOCKDOWN_EXECUTE;
		}
	file.fd = open(path, O_PATH | O_CLOEXEC);
	if (file.fd < 0)
		return 0; /* the kernel's own is no file */
	allow_file(*(int *)ruleset, lockdown_landlock_version(), &file);
	close(file.fd);
	return 0;
}

static void allow_path(int ruleset, const char *path, enum lockdown_access access)
{
	const struct lockdown_file file = { .fd = open(path, O_PATH | O_CLOEXEC),
					    .access = access };

	if (file.fd < 0)
		return;
	allow_file(ruleset, lockdown_landlock_version(), &file);
	close(file.fd);
}

/*
 * What these and whoever they start need: the program, what it is linked with, name servers, and
 * an empty root that is there already, since nobody mounts any more.
 */
static void take_files_but_own(const struct role_description *role,
			       const struct lockdown_file *files, unsigned count)
{
	static const char *const read[] = { "/etc/ld.so.cache", "/etc/resolv.conf", "/dev/null" };
	const struct lockdown_file own[] = {
		{ .fd = grant_fd(GRANT_PROGRAM), .access = LOCKDOWN_EXECUTE },
		{ .fd = grant_fd(GRANT_ROOT), .access = LOCKDOWN_READ_BENEATH },
	};
	const int version = lockdown_landlock_version();
	struct ruleset handled = everything(version, role);
	int ruleset;

	if (!version)
		return;
	handled.net = 0; /* who serves a network listens */
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &handled, ruleset_bytes(version), 0);
	if (ruleset < 0)
		return;
	dl_iterate_phdr(allow_object, &ruleset);
	for (size_t n = 0; n < sizeof(read) / sizeof(read[0]); n++)
		allow_path(ruleset, read[n], LOCKDOWN_READ);
	for (size_t n = 0; n < sizeof(own) / sizeof(own[0]); n++)
		allow_file(ruleset, version, &own[n]);
	for (unsigned n = 0; n < count; n++)
		allow_file(ruleset, version, &files[n]);
	ruleset_enter(ruleset);
}

/* Whether one without a capability may have namespaces, so that who is started needs none. */
static bool has_namespaces_without_rights(void)
{
	int status = 1;
	pid_t child = fork();

	if (!child)
		_exit(take_capabilities(0) || unshare(CLONE_NEWUSER | CLONE_NEWNS) ? 1 : 0);
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return child > 0 && !status;
}

/* Root's, for who listens at a port below 1024; and, where there is no other way, for roots. */
static uint32_t starters_capabilities(enum role started)
{
	if (geteuid())
		return 0;
	return (started == ROLE_NET ? 1u << CAP_NET_BIND_SERVICE : 0) |
	       (has_namespaces_without_rights() ? 0 : 1u << CAP_SYS_ADMIN | 1u << CAP_SYS_CHROOT);
}

int lockdown_to_start(enum role role, enum role started, bool meets,
		      const struct lockdown_file *files, unsigned count)
{
	const struct role_description *description = role_describe(role);
	struct call_filter *filter;
	int error;

	assert(description->starting_calls);
	if (has_starters_list())
		return 0;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	leave_root(role_describe(started)->keeps_resolver);
	take_files_but_own(description, files, count);
	error = take_capabilities(starters_capabilities(started));
	if (error)
		return error;
	filter = call_rules_make(description->starting_calls, SECCOMP_RET_ERRNO | EPERM);
	error = filter ? 0 : -ENOMEM;
	if (!error && meets)
		error = call_rules_add(filter, meeting_calls);
	if (!error)
		error = load_filter(filter);
	call_filter_free(filter);
	return error;
}

/* ---- compiled, then loaded ---- */

int lockdown_compile(enum role role, struct sock_fprog *ret)
{
	struct call_filter *filter =
		call_rules_make(role_describe(role)->calls, SECCOMP_RET_KILL_PROCESS);
	int error = filter ? call_filter_compile(filter, ret) : -ENOMEM;

	call_filter_free(filter);
	return error;
}

int lockdown_compile_forked(enum role role, struct sock_fprog *ret)
{
	struct call_filter *filter = call_rules_make_less(role_describe(role)->forked_calls);
	int error = filter ? call_filter_compile(filter, ret) : -ENOMEM;

	call_filter_free(filter);
	return error;
}

int lockdown_load(const struct sock_fprog *program) { return call_filter_load(program); }
