/* An assertion that fails in a process that is locked down: who looks after it hears which. */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process/assertion.h"
#include "process/report.h"

enum { TEXT_BYTES = 256 };

static void fail(int number) { assert(number == 1); }

int main(void)
{
	const int flags = MAP_SHARED | MAP_ANONYMOUS;
	char *text = mmap(NULL, TEXT_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
	int status;
	pid_t child;

	if (text == MAP_FAILED)
		return 70;
	child = fork();
	if (!child) {
		assertion_describe_in(text, TEXT_BYTES);
		fail(2);
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return 70;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_FAULT ||
	    !strstr(text, "number == 1")) {
		printf("assertion_test: status %#x, said: %s\n", (unsigned)status, text);
		return 1;
	}
	return 0;
}
