/*
 * Who reads what a verb prints again and again: a terminal, a file, or a program that may be done
 * before the verb is, which is noticed also while nothing is printed.
 */
#pragma once

/* How a verb ends whose reader has gone: as a shell says of who was ended by SIGPIPE. */
enum { READER_GONE = 141 };

/*
 * What was printed goes out; then it waits for so long. 0, READER_GONE, or another exit code: what
 * was printed could not be written, which main() says.
 */
int reader_wait(int milliseconds);
