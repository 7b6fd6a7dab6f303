/*
 * What is on a machine's screen, as a PNG in base64 (api.h, getScreenshot): the command takes it,
 * and nothing of the picture is looked at here.
 */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "failure.h"

static const uint8_t png_begin[] = { 0x89, 'P', 'N', 'G' };

/* NULL: no memory. */
static json_t *base64_of(const struct job_result *result)
{
	const int variant = sodium_base64_VARIANT_ORIGINAL;
	const size_t bytes = sodium_base64_encoded_len(result->output_bytes, variant);
	char *text = malloc(bytes);
	json_t *value;

	if (!text)
		return NULL;
	sodium_bin2base64(text, bytes, (const unsigned char *)result->output,
			  result->output_bytes, variant);
	value = json_string(text);
	free(text);
	return value;
}

static bool is_png(const struct job_result *result)
{
	return !result->is_cut && result->output_bytes > sizeof(png_begin) &&
	       !memcmp(result->output, png_begin, sizeof(png_begin));
}

static void screenshot_ended(void *context, const struct job_result *result)
{
	struct api_call *call = context;

	if (result->code)
		call_answer(call, 409, failure_of_job(result));
	else if (!is_png(result))
		call_fail(call, 0, FAILURE_FAULT, "the command's answer is no picture",
			  "ask the command itself");
	else
		call_answer(call, 200, json_pack("{s:o}", "png", base64_of(result)));
	call_release(call);
}

void call_screenshot(struct api_call *call)
{
	char *words[] = { (char *)(uintptr_t)call->daemon->program, (char[]){ "screenshot" },
			  (char *)(uintptr_t)call_text(call, "machine"), (char[]){ "-" }, NULL };

	if (call_running_machine(call))
		call_job(call, words, NULL, screenshot_ended);
}
