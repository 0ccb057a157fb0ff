/*
 * What a tool written for KLIPS does: it writes a message and looks at what write() says, not at the answer. The octets are
 * those of an ADDFLOW that `ipsec eroute' of Openswan sends.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define PF_KEY_V2 2

#define MUST(what) ((what) ? (void)0 : fail(__LINE__, #what))

static void fail(int line, const char *what)
{
	fprintf(stderr, "line %d: %s (errno %d: %s)\n", line, what, errno, strerror(errno));
	exit(1);
}

static unsigned char flow[184];

static void address(unsigned char *at, int type, int a, int b, int c, int d)
{
	unsigned char octets[24] = { 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0 };
	octets[2] = (unsigned char)type;
	octets[12] = (unsigned char)a;
	octets[13] = (unsigned char)b;
	octets[14] = (unsigned char)c;
	octets[15] = (unsigned char)d;
	memcpy(at, octets, 24);
}

static void fill(void)
{
	static const unsigned char head[24] = {
		2, 14, 0, 9, 23, 0, 0, 0, 1, 0, 0, 0, 0x0f, 0x27, 0, 0, 3, 0, 1, 0, 0x12, 0x34, 0x56, 0x78
	};
	memcpy(flow, head, sizeof head);
	address(flow + 40, 5, 0, 0, 0, 0);
	address(flow + 64, 6, 192, 1, 2, 40);
	address(flow + 88, 21, 192, 0, 2, 0);
	address(flow + 112, 22, 192, 0, 1, 0);
	address(flow + 136, 23, 255, 255, 255, 0);
	address(flow + 160, 24, 255, 255, 255, 0);
}

int main(void)
{
	unsigned char octets[512], clear[40] = { 2, 15, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 0x0f, 0x27, 0, 0, 3, 0, 1 };
	int fd = socket(PF_KEY, SOCK_RAW, PF_KEY_V2), status;
	pid_t child;
	alarm(60);
	MUST(fd >= 0);
	fill();
	MUST(write(fd, flow, sizeof flow) == 184);
	/* It is there already: the call says so, and behind what nobody has read lies a message that says the same. */
	flow[8] = 2;
	errno = 0;
	MUST(write(fd, flow, sizeof flow) == -1 && errno == EEXIST);
	flow[8] = 3;
	flow[1] = 77;
	MUST(send(fd, flow, sizeof flow, 0) == -1 && errno == EINVAL);
	flow[1] = 14;
	MUST(write(fd, flow, 12) == -1 && errno == EMSGSIZE);
	MUST(read(fd, octets, sizeof octets) == 160 && octets[1] == 14 && octets[2] == 0 && octets[8] == 1);
	MUST(read(fd, octets, sizeof octets) == 16 && octets[1] == 14 && octets[2] == EEXIST && octets[8] == 2);
	MUST(read(fd, octets, sizeof octets) == 16 && octets[1] == 77 && octets[2] == EINVAL && octets[8] == 3);
	MUST(read(fd, octets, sizeof octets) == 16 && octets[2] == EMSGSIZE);
	/* Once more with nothing unread. */
	MUST(write(fd, flow, sizeof flow) == -1 && errno == EEXIST);
	MUST(read(fd, octets, sizeof octets) == 16 && octets[2] == EEXIST);
	puts("added");
	fflush(stdout);
	MUST(read(0, octets, 1) == 1);
	clear[24] = 0;
	clear[28] = 4;
	MUST(write(fd, clear, sizeof clear) == 40);
	MUST(read(fd, octets, sizeof octets) == 40 && octets[1] == 15 && octets[2] == 0);
	MUST(recv(fd, octets, sizeof octets, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	child = fork();
	if (child == 0) {
		MUST(setgid(65534) == 0 && setuid(65534) == 0);
		MUST(socket(PF_KEY, SOCK_RAW, PF_KEY_V2) == -1 && errno == EACCES);
		exit(0);
	}
	MUST(waitpid(child, &status, 0) == child && status == 0);
	puts("cleared");
	return 0;
}
