/*
 * What a sanitized build asks of its sanitizer, so that no environment is needed: the engine takes
 * the fault signals itself, and leaks are not looked for in a process that may not even open /proc.
 * A test that wants another thing says so in ASAN_OPTIONS.
 */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
	return "detect_leaks=0:detect_stack_use_after_return=0:use_madv_dontdump=0:handle_segv=0:"
	       "handle_sigbus=0:handle_sigill=0:handle_sigfpe=0:use_sigaltstack=0";
}
