/* See lockdown.h. */
#include "lockdown.h"

#include <assert.h>
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "forker.h"
#include "port_window.h"
#include "slot_queue.h"

/* ---- Landlock ---- */

/*
 * struct landlock_ruleset_attr as version 6 has it; older kernels take as much of it as they know.
 */
struct ruleset { uint64_t files, net, scoped; };

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
	if (file->access == LOCKDOWN_READ_BENEATH)
		rule.allowed_access |= LANDLOCK_ACCESS_FS_READ_DIR;
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

/* The only file that is made, where none was. */
enum { COPY_FLAGS = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, COPY_MODE = 0444,
       COPY_FOLDER_MODE = 0555 };
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
	       !mount("none", root_place, "tmpfs", MS_RDONLY | ROOT_FLAGS,
		      "size=4k,nr_inodes=1");
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

/* The same, with a copy of the one file that a resolver reads. */
static void take_root_but_resolver(void)
{
	static const char file[] = "etc/resolv.conf";
	int from = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC);

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", root_place, "tmpfs", ROOT_FLAGS, "size=64k,nr_inodes=4") ||
	    chdir(root_place))
		return;
	if (!mkdir("etc", COPY_FOLDER_MODE))
		copy_file(from, file);
	close(from);
	mount("none", ".", NULL, MS_REMOUNT | MS_RDONLY | ROOT_FLAGS, NULL);
	if (!syscall(SYS_pivot_root, ".", "."))
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

/*
 * In a namespace of users whose own user is not named there no other can be made: who begins in one
 * (role_description.spawn_namespaces) does without. False: the host does not permit it, one layer
 * less.
 */
static bool enter_namespaces(int namespaces)
{
	return namespaces &&
	       (!unshare(namespaces) || !unshare(namespaces & ~CLONE_NEWUSER));
}

static void choose_root(const struct role_description *role)
{
	if (role->keeps_resolver)
		take_root_but_resolver();
	else if (role->empties_root)
		take_root();
}

int lockdown_before_threads(enum role role, const int *folders)
{
	const struct role_description *description = role_describe(role);

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	if (enter_namespaces(description->own_namespaces))
		choose_root(description);
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
		rule.allowed_access |= LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |
				       LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_SYM |
				       LANDLOCK_ACCESS_FS_REMOVE_FILE |
				       LANDLOCK_ACCESS_FS_REMOVE_DIR |
				       (version >= 2 ? FILES_REFER : 0) |
				       (version >= 3 ? FILES_TRUNCATE : 0);
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

enum { OFF_PAGE_OTHERS = 3 };
enum { FUTEX_COMMAND = ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME) & 0xff };

static int rule(scmp_filter_ctx filter, int call, struct scmp_arg_cmp condition)
{
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, condition);
}

/* One rule for each of these values of an argument, ended by -1. */
static int allow_values(scmp_filter_ctx filter, int call, unsigned argument, const long *values)
{
	int error = 0;

	for (; *values >= 0 && !error; values++)
		error = rule(filter, call,
			     SCMP_CMP(argument, SCMP_CMP_EQ, (scmp_datum_t)*values, 0));
	return error;
}

static int allow_grants(scmp_filter_ctx filter, int call, uint64_t grants)
{
	int error = 0;

	for (unsigned n = 0; n < GRANTS && !error; n++)
		if (grants & GRANT(n))
			error = rule(
				filter, call,
				SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)grant_fd((enum grant)n), 0));
	return error;
}

static int allow_processes(scmp_filter_ctx filter, int call)
{
	int error = allow_grants(filter, call, GRANT(GRANT_MACHINE));

	for (scmp_datum_t value = 0; value < HELPERS_MOST && !error; value++)
		error = rule(filter, call, SCMP_A0(SCMP_CMP_EQ, HELPERS_FIRST_FD + value, 0));
	return error;
}

static int allow_futex(scmp_filter_ctx filter, int call)
{
	static const unsigned commands[] = { FUTEX_WAIT, FUTEX_WAKE, FUTEX_WAIT_BITSET,
					     FUTEX_WAKE_BITSET };
	int error = 0;

	for (size_t n = 0; n < sizeof(commands) / sizeof(commands[0]) && !error; n++)
		error = rule(filter, call, SCMP_A1(SCMP_CMP_MASKED_EQ, FUTEX_COMMAND, commands[n]));
	return error;
}

static int allow_terminal(scmp_filter_ctx filter, int call)
{
	static const unsigned requests[] = { TCGETS, TCSETS, TCSETSW, TCSETSF };
	int error = 0;

	for (size_t n = 0; n < sizeof(requests) / sizeof(requests[0]) && !error; n++)
		error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 2,
					 SCMP_A0(SCMP_CMP_EQ, STDIN_FILENO, 0),
					 SCMP_A1(SCMP_CMP_EQ, requests[n], 0));
	return error;
}

/* stat() of a path fails as if it could not be asked for. */
static int allow_on_open_file(scmp_filter_ctx filter, int call)
{
	int error = rule(filter, call, SCMP_A3(SCMP_CMP_EQ, AT_EMPTY_PATH, 0));

	return error ? error
		     : seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), call, 1,
					SCMP_A3(SCMP_CMP_NE, AT_EMPTY_PATH, 0));
}

/*
 * Flags of a socket are let through. Ping is refused: who cannot have it as a datagram asks for a
 * raw socket.
 */
static int allow_internet(scmp_filter_ctx filter, int call)
{
	static const struct { uint32_t action; int type, protocol; } kinds[] = {
		{ SCMP_ACT_ALLOW, SOCK_STREAM, 0 },
		{ SCMP_ACT_ALLOW, SOCK_STREAM, IPPROTO_TCP },
		{ SCMP_ACT_ALLOW, SOCK_DGRAM, 0 },
		{ SCMP_ACT_ALLOW, SOCK_DGRAM, IPPROTO_UDP },
		{ SCMP_ACT_ERRNO(EACCES), SOCK_DGRAM, IPPROTO_ICMP },
		{ SCMP_ACT_ERRNO(EACCES), SOCK_DGRAM, IPPROTO_ICMPV6 },
		{ SCMP_ACT_ERRNO(EACCES), SOCK_RAW, IPPROTO_ICMP },
		{ SCMP_ACT_ERRNO(EACCES), SOCK_RAW, IPPROTO_ICMPV6 },
	};
	static const int domains[] = { AF_INET, AF_INET6 };
	const scmp_datum_t type_bits = ~(scmp_datum_t)(SOCK_CLOEXEC | SOCK_NONBLOCK);
	int error = 0;

	for (size_t n = 0; n < 2 * sizeof(kinds) / sizeof(kinds[0]) && !error; n++)
		error = seccomp_rule_add(
			filter, kinds[n / 2].action, call, 3,
			SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)domains[n % 2], 0),
			SCMP_A1(SCMP_CMP_MASKED_EQ, type_bits, (scmp_datum_t)kinds[n / 2].type),
			SCMP_A2(SCMP_CMP_EQ, (scmp_datum_t)kinds[n / 2].protocol, 0));
	return error;
}

/*
 * Rules for a call that takes away what lies at argument 0, of argument 1 bytes: nothing of the
 * forker's page (forker.h, invariant 1). Numbers are compared here and not added, so that what lies
 * before the page is allowed by how long it is; the last of these lengths is an engine's table.
 */
static int allow_off_page(scmp_filter_ctx filter, int call, const struct scmp_arg_cmp *others,
			  unsigned count)
{
	static const scmp_datum_t most_bytes[] = { 64ull << 10, 2ull << 20, 1ull << 30,
						   (512ull << 30) + (128ull << 10) };
	const scmp_datum_t page = forker_page();
	struct scmp_arg_cmp all[OFF_PAGE_OTHERS + 2];
	int error;

	assert(count <= OFF_PAGE_OTHERS && page > most_bytes[0]);
	if (count)
		memcpy(all, others, count * sizeof(*others));
	all[count] = SCMP_A0(SCMP_CMP_GT, page, 0);
	error = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, count + 1, all);
	for (size_t n = 0; n < sizeof(most_bytes) / sizeof(most_bytes[0]) && !error; n++) {
		if (page < most_bytes[n])
			break;
		all[count] = SCMP_A0(SCMP_CMP_LE, page - most_bytes[n], 0);
		all[count + 1] = SCMP_A1(SCMP_CMP_LE, most_bytes[n], 0);
		error = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, count + 2, all);
	}
	return error;
}

/*
 * Of nobody else's: what is shared would be so with who is forked, too. The kernel makes a mapping
 * of huge pages longer than it was asked for.
 */
static int allow_own_memory(scmp_filter_ctx filter, int call)
{
	const scmp_datum_t kind = MAP_ANONYMOUS | MAP_SHARED | MAP_HUGETLB;
	const struct scmp_arg_cmp in_place[] = {
		SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
		SCMP_A3(SCMP_CMP_MASKED_EQ, kind | MAP_FIXED, MAP_ANONYMOUS | MAP_FIXED),
	};
	int error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 2,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
				     SCMP_A3(SCMP_CMP_MASKED_EQ, kind | MAP_FIXED, MAP_ANONYMOUS));

	return error ? error : allow_off_page(filter, call, in_place, 2);
}

static int allow_in_place(scmp_filter_ctx filter, int call, int fd, struct scmp_arg_cmp protection)
{
	const struct scmp_arg_cmp in_place[] = {
		protection,
		SCMP_A3(SCMP_CMP_EQ, MAP_SHARED | MAP_FIXED, 0),
		SCMP_A4(SCMP_CMP_EQ, (scmp_datum_t)fd, 0),
	};

	return allow_off_page(filter, call, in_place, OFF_PAGE_OTHERS);
}

/* Memory of its own; or what it was given, in place of what it had there. */
static int allow_own_mapping(scmp_filter_ctx filter, int call)
{
	static const enum grant data[] = { GRANT_RINGS, GRANT_SLOTS, GRANT_CODE,
					   GRANT_CONNECTIONS, GRANT_CARDS, GRANT_CARDS + 1,
					   GRANT_CARDS + 2, GRANT_CARDS_LAST };
	int error = allow_own_memory(filter, call);

	for (size_t n = 0; n < sizeof(data) / sizeof(data[0]) && !error; n++)
		error = allow_in_place(filter, call, grant_fd(data[n]),
				       SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!error)
		error = allow_in_place(filter, call, grant_fd(GRANT_CODE),
				       SCMP_A2(SCMP_CMP_EQ, PROT_READ | PROT_EXEC, 0));
	return error;
}

static int allow_own_or_window(scmp_filter_ctx filter, int call)
{
	int error = allow_own_memory(filter, call);

	return error ? error
		     : allow_in_place(filter, call, WINDOW_RECEIVED_FD,
				      SCMP_A2(SCMP_CMP_EQ, PROT_READ | PROT_WRITE, 0));
}

/* A list of calls more, and nobody who is asked about calls. */
static int allow_filter(scmp_filter_ctx filter, int call)
{
	static const long flags[] = { 0, SECCOMP_FILTER_FLAG_TSYNC };
	int error = 0;

	for (unsigned n = 0; n < 2 && !error; n++)
		error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 2,
					 SCMP_A0(SCMP_CMP_EQ, SECCOMP_SET_MODE_FILTER, 0),
					 SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)flags[n], 0));
	return error;
}

/*
 * Pages, as many as half a window, take a place, be they there already or (old size 0) shared ones
 * once more; or they move away to where nothing is, and their place stays what it is. Neither they
 * nor their place has the forker's page in it: of what lies before it, which is the program's own,
 * so much is left alone.
 */
static int allow_take_place(scmp_filter_ctx filter, int call)
{
	const scmp_datum_t page = forker_page();
	const scmp_datum_t most = WINDOW_HALF_BYTES;
	const struct scmp_arg_cmp from[] = { SCMP_A0(SCMP_CMP_GT, page, 0),
					     SCMP_A0(SCMP_CMP_LE, page - most, 0) };
	const struct scmp_arg_cmp to[] = { SCMP_A4(SCMP_CMP_GT, page, 0),
					   SCMP_A4(SCMP_CMP_LE, page - most, 0) };
	int error = 0;

	assert(page > most);
	for (unsigned n = 0; n < 2 && !error; n++)
		error = seccomp_rule_add(
			filter, SCMP_ACT_ALLOW, call, 4, from[n], SCMP_A1(SCMP_CMP_LE, most, 0),
			SCMP_A2(SCMP_CMP_LE, most, 0),
			SCMP_A3(SCMP_CMP_EQ, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0));
	for (unsigned n = 0; n < 4 && !error; n++)
		error = seccomp_rule_add(
			filter, SCMP_ACT_ALLOW, call, 5, from[n / 2],
			SCMP_A1(SCMP_CMP_LE, most, 0), SCMP_A2(SCMP_CMP_LE, most, 0),
			SCMP_A3(SCMP_CMP_EQ, MREMAP_MAYMOVE | MREMAP_FIXED, 0), to[n % 2]);
	return error;
}

/* ---- of who starts others ---- */

/* TCP and UDP, as who serves a network may ask for them; streams and packets of this host. */
static int allow_sockets(scmp_filter_ctx filter, int call)
{
	static const int types[] = { SOCK_STREAM, SOCK_SEQPACKET };
	const scmp_datum_t type_bits = ~(scmp_datum_t)(SOCK_CLOEXEC | SOCK_NONBLOCK);
	int error = allow_internet(filter, call);

	for (size_t n = 0; n < sizeof(types) / sizeof(types[0]) && !error; n++)
		error = seccomp_rule_add(
			filter, SCMP_ACT_ALLOW, call, 2, SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0),
			SCMP_A1(SCMP_CMP_MASKED_EQ, type_bits, (scmp_datum_t)types[n]));
	return error;
}

static int allow_reads(scmp_filter_ctx filter, int call)
{
	return rule(filter, call,
		    SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
}

/* Nothing that was there is written. */
static int allow_opens(scmp_filter_ctx filter, int call)
{
	int error = allow_reads(filter, call);

	return error ? error
		     : seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 2,
					SCMP_A2(SCMP_CMP_EQ, COPY_FLAGS, 0),
					SCMP_A3(SCMP_CMP_EQ, COPY_MODE, 0));
}

static int allow_not_both(scmp_filter_ctx filter, int call)
{
	static const scmp_datum_t kept[] = { 0, PROT_WRITE, PROT_EXEC };
	int error = 0;

	for (size_t n = 0; n < sizeof(kept) / sizeof(kept[0]) && !error; n++)
		error = rule(filter, call,
			     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_WRITE | PROT_EXEC, kept[n]));
	return error;
}

static int allow_to_start(scmp_filter_ctx filter, const struct role_call *entry, int call)
{
	static const long descriptors[] = { F_DUPFD_CLOEXEC, F_GETFD,     F_SETFD,     F_GETFL,
					    F_SETFL,         F_ADD_SEALS, F_GET_SEALS, -1 };
	static const long give_up[] = { PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_CAP_AMBIENT,
					PR_SET_PDEATHSIG,    PR_SET_SECCOMP,  -1 };
	static const long cards[] = { FIONREAD, FIONBIO, TUNSETVNETHDRSZ, TUNSETOFFLOAD, -1 };

	switch (entry->condition) {
	case CALL_PROCESS:
		return rule(filter, call,
			    SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_VM | CLONE_THREAD, 0));
	case CALL_BY_DESCRIPTOR: return rule(filter, call, SCMP_A4(SCMP_CMP_EQ, AT_EMPTY_PATH, 0));
	case CALL_NOT_BOTH: return allow_not_both(filter, call);
	case CALL_OPENS: return allow_opens(filter, call);
	case CALL_OF_COPY: return rule(filter, call, SCMP_A1(SCMP_CMP_EQ, COPY_FOLDER_MODE, 0));
	case CALL_DESCRIPTORS: return allow_values(filter, call, 1, descriptors);
	case CALL_GIVE_UP: return allow_values(filter, call, 0, give_up);
	case CALL_OWN_LIMITS: return rule(filter, call, SCMP_A0(SCMP_CMP_EQ, 0, 0));
	case CALL_SOCKETS: return allow_sockets(filter, call);
	case CALL_CARDS: return allow_values(filter, call, 1, cards);
	default: return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
	}
}

static int allow(scmp_filter_ctx filter, const struct role_call *entry)
{
	static const long forks[] = { FORKER_FORK_FLAGS, FORKER_SELF_FLAGS, FORKER_THREAD_FLAGS,
				      -1 };
	static const long gs[] = { ARCH_SET_GS, -1 };
	static const long give_back[] = { MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
					  MADV_DONTFORK, -1 };
	static const long received[] = { WINDOW_RECEIVED_FD, -1 };
	static const long empty[] = { MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
				      MADV_DONTFORK, MADV_REMOVE, -1 };
	static const long locks[] = { F_OFD_GETLK, F_OFD_SETLK, -1 };
	static const long control[] = { F_OFD_GETLK,     F_OFD_SETLK, F_SETLK, F_GETLK, F_GETFD,
					F_DUPFD_CLOEXEC, F_SETFD,     F_GETFL, -1 };
	static const long readable[] = { FIONREAD, FIONBIO, -1 };
	static const long blocking[] = { F_GETFL, F_SETFL, F_GETFD, F_SETFD, -1 };
	static const long pages[] = { UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_WAKE, UFFDIO_UNREGISTER,
				      -1 };
	static const long enter[] = { 0, 1 /* IORING_ENTER_GETEVENTS */, 2 /* SQ_WAKEUP */,
				      3, 9 /* GETEVENTS, EXT_ARG */,     -1 };
	int call = seccomp_syscall_resolve_name(entry->name);

	assert(call != __NR_SCMP_ERROR);
	switch (entry->condition) {
	case CALL_ON_GRANTS: return allow_grants(filter, call, entry->grants);
	case CALL_OWN_PROCESS:
		return rule(filter, call, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
	case CALL_ON_PROCESSES: return allow_processes(filter, call);
	case CALL_NO_EXECUTION:
		return rule(filter, call, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	case CALL_ANONYMOUS:
		return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 2,
					SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
					SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS | MAP_SHARED,
						MAP_ANONYMOUS));
	case CALL_OWN_MEMORY: return allow_own_memory(filter, call);
	case CALL_OWN_OR_WINDOW: return allow_own_or_window(filter, call);
	case CALL_RECEIVED: return allow_values(filter, call, 0, received);
	case CALL_OFF_PAGE: return allow_off_page(filter, call, NULL, 0);
	case CALL_FILTER: return allow_filter(filter, call);
	case CALL_WAIT_OR_WAKE: return allow_futex(filter, call);
	case CALL_GIVE_BACK: return allow_values(filter, call, 2, give_back);
	case CALL_EMPTY: return allow_values(filter, call, 2, empty);
	case CALL_TERMINAL: return allow_terminal(filter, call);
	case CALL_LOCKS: return allow_values(filter, call, 1, locks);
	case CALL_ON_OPEN_FILE: return allow_on_open_file(filter, call);
	case CALL_REFUSED: return seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), call, 0);
	case CALL_READABLE_BYTES: return allow_values(filter, call, 1, readable);
	case CALL_BLOCKING: return allow_values(filter, call, 1, blocking);
	case CALL_INTERNET: return allow_internet(filter, call);
	case CALL_LOCAL:
		return seccomp_rule_add(
			filter, SCMP_ACT_ALLOW, call, 2, SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0),
			SCMP_A1(SCMP_CMP_MASKED_EQ,
				~(scmp_datum_t)(SOCK_CLOEXEC | SOCK_NONBLOCK), SOCK_STREAM));
	case CALL_READS_ONLY: return allow_reads(filter, call);
	case CALL_RING_ENTER: return allow_values(filter, call, 3, enter);
	case CALL_THREAD:
		return rule(filter, call, SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
	case CALL_UNKNOWN: return seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), call, 0);
	case CALL_FILE_CONTROL: return allow_values(filter, call, 1, control);
	case CALL_OWN_MAPPING: return allow_own_mapping(filter, call);
	case CALL_FORK: return allow_values(filter, call, 0, forks);
	case CALL_TAKE_PLACE: return allow_take_place(filter, call);
	case CALL_PAGES: return allow_values(filter, call, 1, pages);
	case CALL_GS: return allow_values(filter, call, 0, gs);
	default: return allow_to_start(filter, entry, call);
	}
}

/* NULL: no memory, or a call that this libseccomp does not know. */
static scmp_filter_ctx make_filter(const struct role_call *call, uint32_t otherwise)
{
	scmp_filter_ctx filter = seccomp_init(otherwise);
	int error = filter ? 0 : -ENOMEM;

	assert(call);
	if (!error)
		error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	for (; call->name && !error; call++)
		error = allow(filter, call);
#ifdef __SANITIZE_ADDRESS__
	/*
	 * Its allocator takes memory of each size by mmap, whenever one is first asked for; and
	 * shadow of what is unmapped is mapped anew, and said to want no huge pages.
	 */
	if (!error)
		error = allow(filter, &(struct role_call){ "mmap", CALL_ANONYMOUS, 0 });
	if (!error)
		error = allow(filter, &(struct role_call){ "madvise", CALL_GIVE_BACK, 0 });
#endif
	if (!error)
		return filter;
	seccomp_release(filter);
	return NULL;
}

static int load_calls(const struct role_call *call, uint32_t otherwise)
{
	scmp_filter_ctx filter = make_filter(call, otherwise);
	int error = filter ? seccomp_load(filter) : -ENOMEM;

	seccomp_release(filter);
	return error;
}

int lockdown(enum role role)
{
	return load_calls(role_describe(role)->calls, SCMP_ACT_KILL_PROCESS);
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

	return geteuid() ? leaves
			 : leaves | 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH;
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
	return error ? error : load_calls(description->opening_calls, SCMP_ACT_ERRNO(EPERM));
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

/*
 * A rule about files would keep its children from giving themselves an empty root: so it has none.
 */
static void take_signals(const struct role_description *role)
{
	const int version = lockdown_landlock_version();
	struct ruleset own = everything(version, role);

	own.files = own.net = 0;
	if (version >= 6)
		ruleset_enter((int)syscall(SYS_landlock_create_ruleset, &own,
					   ruleset_bytes(version), 0));
}

int lockdown_to_start(enum role role, bool meets)
{
	const struct role_description *description = role_describe(role);
	scmp_filter_ctx filter;
	int error;

	assert(description->starting_calls);
	if (has_starters_list())
		return 0;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	take_signals(description);
	filter = make_filter(description->starting_calls, SCMP_ACT_ERRNO(EPERM));
	error = filter ? 0 : -ENOMEM;
	for (const struct role_call *call = meeting_calls; meets && call->name && !error; call++)
		error = allow(filter, call);
	if (!error)
		error = seccomp_load(filter);
	seccomp_release(filter);
	return error;
}

/* ---- compiled, then loaded ---- */

int lockdown_compile(enum role role, struct sock_fprog *ret)
{
	scmp_filter_ctx filter = make_filter(role_describe(role)->calls, SCMP_ACT_KILL_PROCESS);
	int fd = memfd_create("umbra-filter", MFD_CLOEXEC);
	int error = filter && fd >= 0 ? seccomp_export_bpf(filter, fd) : -ENOMEM;
	off_t bytes = error ? 0 : lseek(fd, 0, SEEK_END);

	ret->len = (unsigned short)((size_t)bytes / sizeof(*ret->filter));
	ret->filter = bytes > 0 ? mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, fd, 0)
				: MAP_FAILED;
	if (fd >= 0)
		close(fd);
	seccomp_release(filter);
	return ret->filter == MAP_FAILED ? -ENOMEM : 0;
}

int lockdown_load(const struct sock_fprog *program)
{
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, program))
		return -errno;
	return 0;
}
