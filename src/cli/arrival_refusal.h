/*
 * Why a machine that arrives does not begin here, as its sender hears it: of what kind it is, and
 * nothing else. What umbra run says names files, folders and remedies of this host, which are
 * nobody's business elsewhere; all of it is said here, where umbra listen runs.
 */
#pragma once

/* Of the line that was said, and the exit code. It is always one of the texts of this program. */
const char *arrival_refusal(const char *said, int code);
