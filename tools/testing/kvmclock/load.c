// SPDX-License-Identifier: GPL-2.0
/*
 * The first PID 1 of a kernel that has its drivers in modules: loads those that
 * /modules lists, a path a line, in that order, and becomes /init.next.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The runner looks for this word on the console. */
static void give_up(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	fflush(stdout);
	sync();
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

static void load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
		give_up(path);
	close(fd);
}

int main(int argc, char *argv[])
{
	FILE *list = fopen("/modules", "r");
	char path[256];

	(void)argc;
	if (!list)
		give_up("/modules");
	while (fgets(path, sizeof(path), list)) {
		path[strcspn(path, "\n")] = '\0';
		load(path);
	}
	fclose(list);

	/* The environment holds what the command line says to init. */
	execv("/init.next", argv);
	give_up("/init.next");
}
