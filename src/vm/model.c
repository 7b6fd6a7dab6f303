/* Which processor a machine's guest sees, by the names that a user gives (x86/cpu_model.h). */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
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
	char path[96];
	char text[sizeof(safe)] = { 0 };
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

/* ---- in words ---- */

struct text {
	char *at;
	size_t left;
};

__attribute__((format(printf, 2, 3))) static void text_add(struct text *text, const char *format,
							   ...)
{
	va_list arguments;
	int bytes;

	assert(text->left); /* for the NUL */
	va_start(arguments, format);
	bytes = vsnprintf(text->at, text->left, format, arguments);
	va_end(arguments);
	if (bytes < 0)
		return;
	bytes = (size_t)bytes < text->left ? bytes : (int)text->left - 1;
	text->at += bytes;
	text->left -= (size_t)bytes;
}

/* Features with these flags that the set has, or has not. */
static void text_add_features(struct text *text, const struct cpu_features *set, unsigned flags,
			      bool has)
{
	for (unsigned feature = 0; feature < CPU_FEATURES; feature++)
		if ((cpu_feature_info[feature].flags & flags) == flags &&
		    cpu_has(set, (enum cpu_feature)feature) == has)
			text_add(text, " %s", cpu_feature_info[feature].name);
}

static void text_add_signature(struct text *text, uint32_t signature)
{
	unsigned family = signature >> 8 & 15;
	unsigned model = signature >> 4 & 15;

	if (family == 15)
		family += signature >> 20 & 0xff;
	if (family >= 6)
		model |= signature >> 12 & 0xf0;
	text_add(text, "family %u, model %u, stepping %u", family, model, signature & 15);
}

static const char *buffers_text(const struct cpu_host *host)
{
	if (!host->leaks_buffers)
		return "not affected";
	if (host->vendor == CPU_INTEL && !cpu_has(&host->features, CPU_MD_CLEAR))
		return "this processor leaks what they held, and its microcode cannot clear them: "
		       "a guest's programs may sample its kernel";
	return "this processor leaks what they held: "
	       "they are cleared (VERW) before a guest's user code runs";
}

void machine_describe_host(const struct machine_options *options, char *text, size_t bytes)
{
	const struct cpu_host *host = &options->host;
	struct text out = { text, bytes };

	/* the vendor's name is in EBX, EDX, ECX */
	text_add(&out, "processor    %.4s%.4s%.4s, %.48s, ", (const char *)&host->vendor_text[0],
		 (const char *)&host->vendor_text[2], (const char *)&host->vendor_text[1],
		 (const char *)host->brand);
	text_add_signature(&out, host->signature);
	text_add(&out, "\nhas         ");
	text_add_features(&out, &host->features, CPU_BY_HOST, true);
	text_add(&out, "\nlacks       ");
	text_add_features(&out, &host->features, CPU_BY_HOST, false);
	text_add(&out, "\nbuffers      %s\n", buffers_text(host));
}

void machine_describe_model(const struct machine_options *options, char *text, size_t bytes)
{
	const struct cpu_model *model = &options->model;
	struct text out = { text, bytes };

	text_add(&out, "model        %s, ", model->name);
	text_add_signature(&out, model->signature);
	text_add(&out, "\nfeatures    ");
	text_add_features(&out, &model->features, 0, true);
	text_add(&out, "\nspeculation ");
	text_add_features(&out, &model->features, CPU_SPECULATION, true);
	text_add(&out, "\n");
}
