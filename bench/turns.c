/*
 * turns-bench [SECONDS [HOGS]]: two threads on one processor take turns, each waiting in a loop for
 * the other, beside HOGS others that never sleep: by yields alone, and by lib/give_way.h. Prints
 * turns a second of each, the two interleaved.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/give_way.h"

enum { PAUSES = 600, HOGS_MOST = 16, REPEATS = 3 };

struct game {
	volatile unsigned turn;
	volatile bool ends;
	bool yields;
	unsigned long turns;
	double until_s;
};

struct player { struct game *game; unsigned me; };

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void wait_for_turn(const struct player *player, struct give_way *way)
{
	const struct game *game = player->game;

	for (unsigned n = 1; game->turn != player->me && !game->ends; n++) {
		__builtin_ia32_pause();
		if (n % PAUSES)
			continue;
		if (game->yields)
			sched_yield();
		else
			give_way(way);
	}
}

static void *play(void *context)
{
	const struct player *player = context;
	struct game *game = player->game;
	struct give_way way = { 0 };

	while (!game->ends) {
		wait_for_turn(player, &way);
		if (!player->me && now_s() > game->until_s)
			game->ends = true;
		if (!player->me)
			game->turns++;
		game->turn = !player->me;
	}
	return NULL;
}

static double turns_per_s(bool yields, double seconds)
{
	struct game game = { .yields = yields, .until_s = now_s() + seconds };
	struct player players[2] = { { &game, 0 }, { &game, 1 } };
	pthread_t thread[2];

	for (unsigned n = 0; n < 2; n++)
		if (pthread_create(&thread[n], NULL, play, &players[n]))
			exit(1);
	for (unsigned n = 0; n < 2; n++)
		pthread_join(thread[n], NULL);
	return (double)game.turns / seconds;
}

int main(int argc, char **argv)
{
	const double seconds = argc > 1 ? atof(argv[1]) : 2;
	const unsigned wanted = argc > 2 ? (unsigned)atoi(argv[2]) : 2;
	const unsigned hogs = wanted < HOGS_MOST ? wanted : HOGS_MOST;
	pid_t hog[HOGS_MOST];
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	sched_setaffinity(0, sizeof(one), &one);
	for (unsigned n = 0; n < hogs; n++) {
		hog[n] = fork();
		if (!hog[n])
			for (;;)
				__builtin_ia32_pause();
	}
	for (unsigned n = 0; n < REPEATS; n++)
		printf("%u hogs: by yields %.0f, by giving way %.0f turns a second\n", hogs,
		       turns_per_s(true, seconds), turns_per_s(false, seconds));
	for (unsigned n = 0; n < hogs; n++) {
		kill(hog[n], SIGKILL);
		waitpid(hog[n], NULL, 0);
	}
	return 0;
}
