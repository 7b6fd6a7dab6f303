/* Which processor a machine's guest sees, by the names that a user gives (x86/cpu_model.h). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "machine.h"

#include "x86/cpu_model.h"

/* What the host's system says of one attack: true: its processor is not affected, or nothing is
 * known. */
static bool is_safe_from(const char *attack)
{
	static const char safe[] = "Not affected";
	char path[96], text[sizeof(safe)] = { 0 };
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/vulnerabilities/%s", attack);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	return got < 0 || !strcmp(text, safe);
}

static bool leaks_buffers(void)
{
	static const char *const attacks[] = { "mds", "tsx_async_abort", "mmio_stale_data",
					       "reg_file_data_sampling", "tsa" };

	for (unsigned n = 0; n < sizeof(attacks) / sizeof(attacks[0]); n++)
		if (!is_safe_from(attacks[n]))
			return true;
	return false;
}

int machine_find_host(struct machine_options *options, const char *host_mask, char *ret_reason,
		      size_t reason_bytes)
{
	const char *bad;
	size_t bytes;

	cpu_host_find(&options->host);
	options->host.leaks_buffers = leaks_buffers();
	if (!host_mask || cpu_host_mask(&options->host, host_mask, &bad, &bytes))
		return 0;
	snprintf(ret_reason, reason_bytes, "no feature with '-' before it: %.*s", (int)bytes, bad);
	return -EINVAL;
}

int machine_choose_model(struct machine_options *options, const char *text,
			 enum cpu_mitigations mitigations, const char *host_mask, char *ret_reason,
			 size_t reason_bytes)
{
	int error = machine_find_host(options, host_mask, ret_reason, reason_bytes);

	return error ? error
		     : cpu_model_resolve(&options->model, text, mitigations, options->cpus,
					 &options->host, ret_reason, reason_bytes);
}

const char *machine_model_name(unsigned n, const char **ret_summary)
{
	return cpu_model_name(n, ret_summary);
}
