/* See memory_svg.h. */
#include "memory_svg.h"

#include <string.h>

enum { WIDTH = 900, PANEL = 130, PLOT = 90, LEFT = 70, RIGHT = 20, TOP = 30, SERIES = 4 };

static const struct {
	const char *name, *color;
} series[SERIES] = { { "assigned", "#9ecae1" },
		     { "demand", "#d62728" },
		     { "target", "#1f4e79" },
		     { "occupied", "#2ca02c" } };

static double number_at(const json_t *samples, size_t n, const char *machine, unsigned which)
{
	const json_t *sample = json_array_get(samples, n);

	if (!machine)
		return (double)json_integer_value(
			json_object_get(sample, which ? "reserve" : "available"));
	return (double)json_integer_value(json_array_get(
		json_object_get(json_object_get(sample, "machines"), machine), which));
}

static double most_of(const json_t *samples, const char *machine)
{
	double most = 1;

	for (size_t n = 0; n < json_array_size(samples); n++)
		for (unsigned which = 0; which < (machine ? SERIES : 2); which++)
			if (number_at(samples, n, machine, which) > most)
				most = number_at(samples, n, machine, which);
	return most;
}

static void line(FILE *file, const json_t *samples, const char *machine, unsigned which, double top,
		 double most)
{
	const size_t count = json_array_size(samples);
	const double step = (double)(WIDTH - LEFT - RIGHT) / (double)(count > 1 ? count - 1 : 1);
	const char *color = series[machine ? which : which + 1].color;

	fprintf(file, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"",
		color);
	for (size_t n = 0; n < count; n++)
		fprintf(file, "%.1f,%.1f ", LEFT + (double)n * step,
			top + PLOT - number_at(samples, n, machine, which) / most * PLOT);
	fputs("\"/>\n", file);
}

/* A name has letters, digits, '.', '_' and '-' alone (names.h); anything else is left out. */
static void print_name(FILE *file, const char *name)
{
	for (; *name; name++)
		if (strchr("._-", *name) || (*name >= '0' && *name <= '9') ||
		    (*name >= 'A' && *name <= 'Z') || (*name >= 'a' && *name <= 'z'))
			fputc(*name, file);
}

static void panel(FILE *file, const json_t *samples, const char *machine, unsigned row)
{
	const double top = TOP + row * (double)PANEL + 20;
	const double most = most_of(samples, machine);

	fprintf(file, "<text x=\"%d\" y=\"%.0f\" font-weight=\"bold\">", LEFT, top - 6);
	print_name(file, machine ? machine : "host");
	fprintf(file, "</text>\n<text x=\"%d\" y=\"%.0f\" text-anchor=\"end\">%.0f MiB</text>\n",
		LEFT - 6, top + 10, most);
	fprintf(file,
		"<rect x=\"%d\" y=\"%.0f\" width=\"%d\" height=\"%d\" fill=\"none\" "
		"stroke=\"#ccc\"/>\n",
		LEFT, top, WIDTH - LEFT - RIGHT, PLOT);
	for (unsigned which = 0; which < (machine ? SERIES : 2); which++)
		line(file, samples, machine, which, top, most);
}

/* Every machine that was there at any time. */
static json_t *names_of(const json_t *samples)
{
	json_t *names = json_object();

	for (size_t n = 0; n < json_array_size(samples); n++)
		json_object_update(names, json_object_get(json_array_get(samples, n), "machines"));
	return names;
}

static void legend(FILE *file)
{
	for (unsigned n = 0; n < SERIES; n++)
		fprintf(file, "<text x=\"%u\" y=\"18\" fill=\"%s\">%s</text>\n", LEFT + n * 90,
			series[n].color, series[n].name);
	fprintf(file, "<text x=\"%d\" y=\"18\">host: available (%s), reserve (%s)</text>\n",
		LEFT + SERIES * 90, "red", "blue");
}

void memory_svg(FILE *file, const json_t *samples)
{
	json_t *names = names_of(samples);
	unsigned row = 0;
	const char *name;
	json_t *value;

	fprintf(file,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%zu\" "
		"font-family=\"sans-serif\" font-size=\"12\">\n",
		WIDTH, TOP + PANEL * (1 + json_object_size(names)));
	legend(file);
	panel(file, samples, NULL, row++);
	json_object_foreach(names, name, value) panel(file, samples, name, row++);
	fputs("</svg>\n", file);
	json_decref(names);
}
