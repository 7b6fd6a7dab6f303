/* See late.h. */
#include "late.h"

#include <dlfcn.h>
#include <stddef.h>

bool late_load(const struct late_library *library)
{
	/* as long as the process lives: what was found is never given back */
	void *handle = dlopen(library->file, RTLD_NOW | RTLD_LOCAL);

	for (unsigned n = 0; handle && n < library->calls; n++) {
		void *function = dlsym(handle, library->call[n].name);

		if (!function)
			return false;
		__atomic_store_n(library->call[n].slot, function, __ATOMIC_RELEASE);
	}
	return handle != NULL;
}
