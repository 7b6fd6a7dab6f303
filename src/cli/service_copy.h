/* umbra cp --service: a file into a machine by its guest's hv_fcopy_daemon. */
#pragma once

/* path: of the file there, or of a folder, with a slash at its end. The exit code. */
int service_copy(const char *machine, const char *file, const char *path);
