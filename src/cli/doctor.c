/* umbra doctor: what this host offers, which engine would be taken and why. */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli.h"

int verb_doctor(void)
{
	bool usable = __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("avx2");
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	long landlock = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	printf("engine       soft: %s\n", usable ? "would be taken (x86-64-v3 host)" : "NOT usable: it needs BMI2 and AVX2");
	printf("engine       kvm: not built yet; /dev/kvm %s\n", kvm >= 0 ? "is there" : errno == ENOENT ? "is not there" : "may not be opened");
	printf("processors   %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
	printf("memory       %ld MiB\n", sysconf(_SC_PHYS_PAGES) / (1048576 / sysconf(_SC_PAGESIZE)));
	if (landlock > 0)
		printf("landlock     version %ld\n", landlock);
	else
		printf("landlock     not there: machines run with seccomp and namespaces only\n");
	if (kvm >= 0)
		close(kvm);
	return usable ? 0 : EXIT_NO_ENGINE;
}
