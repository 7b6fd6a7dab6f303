/*
 * The disk process while it opens what others made: which files it has then, and that it has
 * nothing else; then what is left afterwards. And that the real one is in that state before the
 * first byte of a disk is read: this program is its own disk process (--role=disk), in which the
 * function that opens disks looks around first.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/block.h"
#include "ipc/lockdown.h"
#include "ipc/spawn.h"
#include "process/disk_access.h"
#include "process/mains.h"
#include "process/plan.h"

enum { PATH_BYTES = 128, DISK_BYTES = 1 << 20, EXIT_HOLE = 41 };

static int failures;

static void expect(const char *what, bool good)
{
	printf("%s %s\n", good ? "ok  " : "FAIL", what);
	fflush(stdout);
	failures += !good;
}

/* ---- what is left ---- */

/* A folder with files that are of the disk process and one that is not, and a file elsewhere. */
struct tree {
	char folder[PATH_BYTES], place[PATH_BYTES], elsewhere[PATH_BYTES];
	char disk[PATH_BYTES], parent[PATH_BYTES], other[PATH_BYTES];
};

static void make_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, DISK_BYTES))
		exit(EXIT_FAILURE);
	close(fd);
}

static void name_in(char *ret, const char *folder, const char *name)
{
	snprintf(ret, PATH_BYTES, "%.60s/%.40s", folder, name);
}

static void make_tree(struct tree *tree)
{
	strcpy(tree->folder, "/tmp/umbra-opening-XXXXXX");
	if (!mkdtemp(tree->folder))
		exit(EXIT_FAILURE);
	name_in(tree->place, tree->folder, "place");
	mkdir(tree->place, 0700);
	name_in(tree->disk, tree->folder, "disk");
	name_in(tree->other, tree->folder, "other");
	name_in(tree->parent, tree->place, "parent");
	strcpy(tree->elsewhere, "/etc/passwd");
	make_file(tree->disk);
	make_file(tree->other);
	make_file(tree->parent);
}

static void remove_tree(const struct tree *tree)
{
	unlink(tree->disk);
	unlink(tree->other);
	unlink(tree->parent);
	rmdir(tree->place);
	rmdir(tree->folder);
}

static bool can_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static bool is_refused(long got) { return got < 0 && (errno == EPERM || errno == EACCES); }

/* Each that is not as it should be says so, by its number. */
static int look_at_files(const struct tree *tree)
{
	char fresh[PATH_BYTES];

	name_in(fresh, tree->place, "fresh");
	if (!can_open(tree->disk, O_RDWR) || !can_open(tree->parent, O_RDONLY) ||
	    !can_open(tree->place, O_RDONLY | O_DIRECTORY))
		return 1;
	if (!lockdown_landlock_version())
		return 0; /* there the list of calls holds alone */
	if (can_open(tree->parent, O_RDWR) || can_open(fresh, O_RDWR | O_CREAT))
		return 2;
	if (can_open(tree->other, O_RDONLY) || can_open(tree->elsewhere, O_RDONLY))
		return 3;
	return rename(tree->parent, fresh) && unlink(tree->disk) ? 0 : 4;
}

static int look_at_calls(void)
{
	char parameters[256] = "";
	pid_t parent = getppid();

	if (!is_refused(socket(AF_UNIX, SOCK_STREAM, 0)) ||
	    !is_refused(socket(AF_INET, SOCK_STREAM, 0)))
		return 10;
	if (!is_refused(syscall(SYS_io_uring_setup, 8, parameters)))
		return 11;
	if (!is_refused(syscall(SYS_fork)) || !is_refused(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)))
		return 12;
	if (syscall(SYS_clone3, parameters, sizeof(parameters)) >= 0)
		return 13;
	if (!is_refused(execl("/bin/true", "true", NULL)))
		return 14;
	if (!is_refused(kill(parent, 0)) || !is_refused(ptrace(PTRACE_ATTACH, parent, 0, 0)))
		return 15;
	if (mmap(NULL, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
		return 16;
	return 0;
}

static int look_afterwards(const struct tree *tree, int root)
{
	if (lockdown_after_opening(ROLE_DISK, root))
		return 20;
	if (lockdown_landlock_version() && can_open(tree->disk, O_RDONLY))
		return 21;
	if (lockdown_has_namespaces() && root < 0)
		return 22;
	if (root >= 0 && (!access(tree->disk, F_OK) || !access("/etc", F_OK)))
		return 23;
	return lockdown(ROLE_DISK) ? 24 : 0;
}

static int be_opener(const struct tree *tree)
{
	const struct lockdown_file files[] = {
		{ .fd = open(tree->disk, O_PATH), .access = LOCKDOWN_WRITE },
		{ .fd = open(tree->place, O_PATH), .access = LOCKDOWN_READ_BENEATH },
	};
	int root = -1;
	int wrong;

	if (lockdown_for_opening(ROLE_DISK, files, 2, &root))
		return 99;
	close(files[0].fd);
	close(files[1].fd);
	wrong = look_at_files(tree);
	if (!wrong)
		wrong = look_at_calls();
	return wrong ? wrong : look_afterwards(tree, root);
}

static void what_is_left(void)
{
	struct tree tree;
	char text[64];
	int status = 0;
	pid_t child;

	make_tree(&tree);
	child = fork();
	if (!child)
		_exit(be_opener(&tree));
	waitpid(child, &status, 0);
	snprintf(text, sizeof(text), "what is left while disks are opened (status %x)", status);
	expect(text, !status);
	remove_tree(&tree);
}

/* What it may do at the end it may do before: the second list comes on top of the first. */
static void lists_agree(void)
{
	const struct role_description *role = role_describe(ROLE_DISK);

	for (const struct role_call *call = role->calls; *call->name; call++) {
		const struct role_call *other = role->opening_calls;

		while (*other->name && strcmp(other->name, call->name))
			other++;
		if (!*other->name) {
			printf("FAIL %s is not left while disks are opened\n", call->name);
			failures++;
		}
	}
}

/* ---- the real one ---- */

int __real_disk_access_open(const struct disk_search *search, const char *path,
			    enum disk_format format, unsigned actions, struct disk_options more,
			    struct disk **ret);
int __wrap_disk_access_open(const struct disk_search *search, const char *path,
			    enum disk_format format, unsigned actions, struct disk_options more,
			    struct disk **ret);

int __wrap_disk_access_open(const struct disk_search *search, const char *path,
			    enum disk_format format, unsigned actions, struct disk_options more,
			    struct disk **ret)
{
	enum { SECCOMP_FILTERED = 2 };

	if (prctl(PR_GET_SECCOMP) != SECCOMP_FILTERED || look_at_calls())
		_exit(EXIT_HOLE);
	if (lockdown_landlock_version() && can_open("/etc/passwd", O_RDONLY))
		_exit(EXIT_HOLE);
	return __real_disk_access_open(search, path, format, actions, more, ret);
}

static int plan_of(const char *disk)
{
	struct plan *plan = plan_new();
	int fd;

	if (!plan)
		exit(EXIT_FAILURE);
	plan->disks.count = 1;
	plan->disks.disk[0].format = DISK_RAW;
	plan_set_text(plan->disks.disk[0].path, PLAN_PATH_BYTES, disk);
	plan->disks.disk[0].read_only = true;
	fd = plan_seal(plan, ROLE_DISK);
	free(plan);
	return fd;
}

static void real_one(void)
{
	struct grants grants;
	struct spawned disk;
	struct tree tree;
	int ready[2];
	int ending[2];
	int status = 0;
	char byte;

	make_tree(&tree);
	grants_clear(&grants);
	if (pipe2(ready, O_CLOEXEC) || pipe2(ending, O_CLOEXEC))
		exit(EXIT_FAILURE);
	grants.fd[GRANT_PROGRAM] = spawn_open_program();
	grants.fd[GRANT_PLAN] = plan_of(tree.disk);
	grants.fd[GRANT_SLOTS] = spawn_share("slots", sizeof(struct block_memory));
	grants.fd[GRANT_DOORBELL] = eventfd(0, EFD_NONBLOCK);
	grants.fd[GRANT_ANSWER] = eventfd(0, 0);
	grants.fd[GRANT_READY] = ready[1];
	grants.fd[GRANT_END] = ending[0];
	if (spawn_role(ROLE_DISK, &grants, -1, &disk))
		exit(EXIT_FAILURE);
	close(ready[1]);
	close(ending[0]);
	expect("a disk process has given up its rights before it opens a disk, and can serve it",
	       read(ready[0], &byte, 1) == 1);
	close(ending[1]);
	waitpid(disk.pid, &status, 0);
	expect("and ends in order", !status);
	remove_tree(&tree);
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--role=disk"))
		return disk_main();
	lists_agree();
	what_is_left();
	real_one();
	return failures != 0;
}
