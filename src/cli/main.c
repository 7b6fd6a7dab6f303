/* umbra: the command. One verb a function; an error is one line on stderr: what, where, remedy. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "../vm/machine.h"

enum { EXIT_USAGE = 64, EXIT_UNUSABLE = 65, EXIT_NO_ENGINE = 69, EXIT_FAULT = 70, EXIT_GUEST_CRASHED = 75 };
enum { ESCAPE_KEY = 0x1d };

static struct termios terminal_before;
static bool terminal_is_raw;
static struct machine *running_machine;
static sigset_t stop_signals;

static void restore_terminal(void)
{
	if (terminal_is_raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &terminal_before);
	terminal_is_raw = false;
}

static void make_terminal_raw(void)
{
	struct termios raw;

	if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &terminal_before))
		return;
	raw = terminal_before;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST;
	terminal_is_raw = !tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	atexit(restore_terminal);
}

static int complain(int code, const char *what, const char *where, const char *remedy)
{
	fprintf(stderr, "umbra: %s: %s; %s\n", where, what, remedy);
	return code;
}

static int map_file(const char *path, struct boot_file *ret)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size == 0) {
		close(fd);
		return -EINVAL;
	}
	ret->data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	ret->bytes = (size_t)st.st_size;
	close(fd);
	return ret->data == MAP_FAILED ? -errno : 0;
}

static bool parse_size(const char *text, uint64_t *ret)
{
	char *end;
	unsigned long long v = strtoull(text, &end, 10);
	unsigned shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;

	if (end == text || (shift && end[1]) || (!shift && *end) || v > UINT64_MAX >> shift)
		return false;
	*ret = v << shift;
	return true;
}

/* ---- console ---- */

struct console { bool filter; int fd; int state; };

/*
 * What a guest prints to a terminal: CSI colour and cursor sequences pass; strings that a terminal acts on (OSC, DCS, APC, PM,
 * SOS: titles, clipboard, key definitions) and reports (CSI c, CSI n) do not.
 */
static size_t filter(struct console *c, const uint8_t *in, size_t bytes, uint8_t *out)
{
	enum { TEXT, ESC, CSI, STRING, STRING_ESC };
	size_t n = 0;

	for (size_t k = 0; k < bytes; k++) {
		uint8_t b = in[k];

		switch (c->state) {
		case TEXT:
			if (b == 0x1b)
				c->state = ESC;
			else if (b != 0x05 && !(b >= 0x80 && b < 0xa0))
				out[n++] = b;
			break;
		case ESC:
			if (b == '[')
				c->state = CSI;
			else if (strchr("]P_^X", b) && b)
				c->state = STRING;
			else {
				c->state = TEXT;
				if (strchr("78DEM=>", b) && b)
					out[n++] = 0x1b, out[n++] = b;
			}
			if (c->state == CSI)
				out[n++] = 0x1b, out[n++] = '[';
			break;
		case CSI:
			if (b >= 0x40 && b <= 0x7e) {
				c->state = TEXT;
				out[n++] = strchr("ABCDEFGHJKLMPSTXdfhlmrsu@", b) ? b : 'm';
			} else if (b >= 0x20) {
				out[n++] = b;
			}
			break;
		case STRING: c->state = b == 0x1b ? STRING_ESC : b == 7 ? TEXT : STRING; break;
		default: c->state = b == '\\' ? TEXT : STRING; break;
		}
	}
	return n;
}

static void write_console(void *context, const uint8_t *data, size_t bytes)
{
	struct console *c = context;
	uint8_t filtered[2048];

	if (c->fd < 0)
		return;
	if (c->filter) {
		bytes = filter(c, data, bytes < sizeof(filtered) / 2 ? bytes : sizeof(filtered) / 2, filtered);
		data = filtered;
	}
	while (bytes) {
		ssize_t n = write(c->fd, data, bytes);

		if (n < 0 && errno != EINTR)
			return;
		if (n > 0)
			data += n, bytes -= (size_t)n;
	}
}

static bool escape_key(struct machine *m, bool *escaped, uint8_t b)
{
	if (!terminal_is_raw)
		return false;
	if (!*escaped)
		return *escaped = b == ESCAPE_KEY;
	*escaped = false;
	if (b == 'q')
		machine_stop(m);
	else if (b == '?')
		fprintf(stderr, "\r\nCtrl-] q  end the machine\r\nCtrl-] ?  this help\r\nCtrl-] Ctrl-]  send Ctrl-]\r\n");
	else if (b == ESCAPE_KEY)
		return false;
	return true;
}

/* Feeds the console and takes the signals that end a machine, until the process ends. */
static void *watch_terminal(void *context)
{
	struct machine *m = context;
	bool escaped = false;
	uint8_t buffer[256];
	size_t used = 0;
	struct pollfd fds[2] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .fd = signalfd(-1, &stop_signals, SFD_CLOEXEC), .events = POLLIN } };

	for (;;) {
		ssize_t n = 0;

		fds[0].events = used < sizeof(buffer) ? POLLIN : 0;
		if (poll(fds, 2, used ? 5 : -1) < 0 && errno != EINTR)
			return NULL;
		if (fds[1].revents)
			machine_stop(m);
		if (fds[0].revents && used < sizeof(buffer)) {
			n = read(STDIN_FILENO, buffer + used, sizeof(buffer) - used);
			if (n <= 0)
				fds[0].fd = -1;
		}
		for (ssize_t k = 0, end = (ssize_t)used + n; k < n && end; k++)
			if (!escape_key(m, &escaped, buffer[used + 0]))
				used++;
			else
				memmove(buffer + used, buffer + used + 1, (size_t)(n - k - 1));
		n = (ssize_t)machine_input(m, buffer, used);
		memmove(buffer, buffer + n, used - (size_t)n);
		used -= (size_t)n;
	}
}

/* ---- umbra run ---- */

static const char run_help[] =
	"usage: umbra run --kernel FILE [--initrd FILE] [--append TEXT] [--memory SIZE] [--cpus N]\n"
	"                 [--console stdio|raw|none]\n"
	"Boots a Linux kernel (bzImage) and gives its serial console. Ctrl-] q ends, Ctrl-] ? helps.\n"
	"Ends 0 when the guest powers off; 64 usage, 65 unusable file, 69 no engine, 70 fault in Umbra, 75 the guest crashed.\n";

struct run_options { const char *kernel, *initrd, *append, *memory, *cpus, *console; bool statistics; };

static int parse_run(int argc, char **argv, struct run_options *o)
{
	static const struct option longs[] = { { "kernel", 1, 0, 'k' }, { "initrd", 1, 0, 'i' }, { "append", 1, 0, 'a' }, { "memory", 1, 0, 'm' },
					       { "cpus", 1, 0, 'c' }, { "console", 1, 0, 'C' }, { "statistics", 0, 0, 's' }, { "help", 0, 0, 'h' }, { 0 } };
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1)
		switch (c) {
		case 'k': o->kernel = optarg; break;
		case 'i': o->initrd = optarg; break;
		case 'a': o->append = optarg; break;
		case 'm': o->memory = optarg; break;
		case 'c': o->cpus = optarg; break;
		case 'C': o->console = optarg; break;
		case 's': o->statistics = true; break;
		case 'h': fputs(run_help, stdout); exit(0);
		default: return EXIT_USAGE;
		}
	if (optind < argc)
		return complain(EXIT_USAGE, "unexpected argument", argv[optind], "see umbra run --help");
	if (!o->kernel)
		return complain(EXIT_USAGE, "no kernel given", "run", "name one with --kernel FILE");
	return 0;
}

/* The line of the guest's log that says why; its first line when none does. */
static void print_crash(const char *text)
{
	const char *line = strstr(text, "Kernel panic");
	fputs("umbra: the guest crashed: ", stderr);
	for (line = line ? line : text; *line && *line != '\n'; line++)
		fputc(*line >= ' ' && *line < 0x7f ? *line : '.', stderr); /* the guest's bytes: no escape sequences */
	fputc('\n', stderr);
}

static int end_code(struct machine *m, enum machine_end end)
{
	const char *text = machine_crash_text(m);

	switch (end) {
	case MACHINE_POWERED_OFF: return 0;
	case MACHINE_RESET: return 0;
	case MACHINE_STOPPED: return 0;
	default:
		if (text)
			print_crash(text);
		else
			fprintf(stderr, "umbra: the guest crashed: triple fault\n");
		return EXIT_GUEST_CRASHED;
	}
}

static int run(int argc, char **argv)
{
	struct run_options o = { .append = "console=ttyS0", .memory = "512M", .cpus = "1", .console = "stdio" };
	struct console console = { .fd = STDOUT_FILENO };
	struct machine_options options = { .console = write_console, .context = &console };
	const char *reason;
	pthread_t input;
	enum machine_end end;
	int error = parse_run(argc, argv, &o), code;

	if (error)
		return error;
	if (!parse_size(o.memory, &options.memory_bytes) || options.memory_bytes < 64 << 20 || options.memory_bytes & 4095 ||
	    options.memory_bytes > (uint64_t)sysconf(_SC_PHYS_PAGES) * 4096)
		return complain(EXIT_USAGE, "not a memory size from 64M to what the host has", o.memory, "say for example --memory 512M");
	options.cpus = (unsigned)atoi(o.cpus);
	if (options.cpus < 1 || options.cpus > MACHINE_MAX_CPUS)
		return complain(EXIT_USAGE, "not a number of processors from 1 to 16", o.cpus, "say for example --cpus 4");
	if (strcmp(o.console, "stdio") && strcmp(o.console, "raw") && strcmp(o.console, "none"))
		return complain(EXIT_USAGE, "not a console", o.console, "use stdio, raw or none");
	console.fd = strcmp(o.console, "none") ? STDOUT_FILENO : -1;
	console.filter = !strcmp(o.console, "stdio") && isatty(STDOUT_FILENO);
	if ((error = map_file(o.kernel, &options.kernel)))
		return complain(EXIT_UNUSABLE, strerror(-error), o.kernel, "name a readable kernel image");
	if (o.initrd && (error = map_file(o.initrd, &options.initrd)))
		return complain(EXIT_UNUSABLE, strerror(-error), o.initrd, "name a readable initrd");
	options.command_line = o.append;
	running_machine = machine_create(&options, &error, &reason);
	if (!running_machine)
		return complain(error == -E2BIG ? EXIT_USAGE : EXIT_UNUSABLE, reason, o.kernel,
				error == -ENOMEM ? "give another --memory" : error == -E2BIG ? "shorten --append" : "name a bzImage");
	make_terminal_raw();
	sigemptyset(&stop_signals);
	sigaddset(&stop_signals, SIGTERM);
	sigaddset(&stop_signals, SIGINT);
	sigaddset(&stop_signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &stop_signals, NULL);
	pthread_create(&input, NULL, watch_terminal, running_machine);
	end = machine_run(running_machine);
	restore_terminal();
	code = end_code(running_machine, end);
	if (o.statistics)
		machine_print_statistics(running_machine);
	return code;
}

static int doctor(void)
{
	bool bmi2 = __builtin_cpu_supports("bmi2"), avx2 = __builtin_cpu_supports("avx2");

	printf("engine       soft: %s\n", bmi2 && avx2 ? "usable (x86-64-v3 host)" : "NOT usable: it needs BMI2 and AVX2");
	printf("engine       kvm: not built yet\n");
	printf("processors   %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
	printf("memory       %ld MiB\n", sysconf(_SC_PHYS_PAGES) / 256);
	return bmi2 && avx2 ? 0 : EXIT_NO_ENGINE;
}

int main(int argc, char **argv)
{
	if (argc >= 2 && !strcmp(argv[1], "run"))
		exit(run(argc - 1, argv + 1));
	if (argc >= 2 && !strcmp(argv[1], "doctor"))
		return doctor();
	if (argc >= 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))) {
		printf("usage: umbra run --kernel FILE ... | umbra doctor\nSee umbra run --help.\n");
		return 0;
	}
	fprintf(stderr, "umbra: no such verb; use run or doctor\n");
	return EXIT_USAGE;
}
