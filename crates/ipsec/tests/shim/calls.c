/*
 * What a program can do with a PF_KEY socket, call by call. `calls NAME' does one case and says nothing if it went as on
 * a kernel's; `calls' alone lists the names. Run under `ipsec run' by calls.rs, built with and without _FORTIFY_SOURCE.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <net/pfkeyv2.h>

static void fail(int line, const char *what)
{
	fprintf(stderr, "line %d: %s (errno %d: %s)\n", line, what, errno, strerror(errno));
	exit(1);
}

#define MUST(what) ((what) ? (void)0 : fail(__LINE__, #what))
/* The call fails with this errno. */
#define FAILS(call, error) (errno = 0, MUST((call) == -1), errno == (error) ? (void)0 : fail(__LINE__, #call " is not " #error))

/* The compiler does not know it, so that reads of this many octets are checked when it runs. */
static volatile size_t room = 4096;
static volatile int minus_one = -1;
static void *volatile nowhere = (void *)8;
static union {
	char octets[4096];
	struct sadb_msg base;
} buffer;

static double now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

static int key_socket(int flags)
{
	int fd = socket(PF_KEY, SOCK_RAW | flags, PF_KEY_V2);
	struct timeval limit = { 20, 0 };
	MUST(fd >= 0);
	/* What is never answered fails instead of hanging. */
	MUST(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
	return fd;
}

/* A GET that names nothing: refused, to its sender alone, by a base header. */
static struct sadb_msg question(uint32_t seq)
{
	struct sadb_msg base;
	memset(&base, 0, sizeof base);
	base.sadb_msg_version = PF_KEY_V2;
	base.sadb_msg_type = SADB_GET;
	base.sadb_msg_satype = SADB_SATYPE_ESP;
	base.sadb_msg_len = sizeof base / 8;
	base.sadb_msg_seq = seq;
	base.sadb_msg_pid = getpid();
	return base;
}

static void ask(int fd, uint32_t seq)
{
	struct sadb_msg base = question(seq);
	MUST(write(fd, &base, sizeof base) == sizeof base);
}

/* What was just read into the buffer is the answer to a question. */
static void is_answer(ssize_t got, uint32_t seq)
{
	MUST(got == sizeof buffer.base);
	MUST(buffer.base.sadb_msg_type == SADB_GET);
	MUST(buffer.base.sadb_msg_errno == EINVAL);
	MUST(buffer.base.sadb_msg_seq == seq);
}

/* It lies ready. */
static void hears_now(int fd, uint32_t seq)
{
	is_answer(recv(fd, buffer.octets, room, MSG_DONTWAIT), seq);
}

static void hears_nothing(int fd)
{
	FAILS(recv(fd, buffer.octets, room, MSG_DONTWAIT), EAGAIN);
}

/* It is a PF_KEY socket that works. */
static void works(int fd, uint32_t seq)
{
	int value = 0;
	socklen_t len = sizeof value;
	MUST(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &len) == 0);
	MUST(value == PF_KEY);
	ask(fd, seq);
	hears_now(fd, seq);
}

static void wait_for(pid_t child)
{
	int status = -1;
	MUST(child > 0);
	MUST(waitpid(child, &status, 0) == child);
	MUST(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int option(int fd, int name)
{
	int value = -1;
	socklen_t len = sizeof value;
	MUST(getsockopt(fd, SOL_SOCKET, name, &value, &len) == 0);
	MUST(len == sizeof value);
	return value;
}

static void put_option(int fd, int name, int value)
{
	MUST(setsockopt(fd, SOL_SOCKET, name, &value, sizeof value) == 0);
}

static void kinds(void)
{
	int before = dup(0);
	FAILS(socket(PF_KEY, SOCK_RAW, 0), EPROTONOSUPPORT);
	FAILS(socket(PF_KEY, SOCK_RAW, 1), EPROTONOSUPPORT);
	FAILS(socket(PF_KEY, SOCK_RAW, 3), EPROTONOSUPPORT);
	FAILS(socket(PF_KEY, SOCK_RAW | SOCK_CLOEXEC, -1), EPROTONOSUPPORT);
	FAILS(socket(PF_KEY, SOCK_DGRAM, PF_KEY_V2), ESOCKTNOSUPPORT);
	FAILS(socket(PF_KEY, SOCK_STREAM, PF_KEY_V2), ESOCKTNOSUPPORT);
	FAILS(socket(PF_KEY, SOCK_SEQPACKET, PF_KEY_V2), ESOCKTNOSUPPORT);
	/* None of them left a descriptor. */
	close(before);
	MUST(dup(0) == before);
}

static void permission(void)
{
	pid_t child = fork();
	if (child == 0) {
		int before = dup(0);
		close(before);
		MUST(setgid(65534) == 0 && setuid(65534) == 0);
		FAILS(socket(PF_KEY, SOCK_RAW, PF_KEY_V2), EPERM);
		FAILS(socket(PF_KEY, SOCK_RAW | SOCK_NONBLOCK, PF_KEY_V2), EPERM);
		MUST(dup(0) == before);
		exit(0);
	}
	wait_for(child);
	/* A directory that is closed says the same. */
	child = fork();
	if (child == 0) {
		char closed[] = "/tmp/pf_key.XXXXXX", path[64];
		MUST(mkdtemp(closed) != NULL);
		snprintf(path, sizeof path, "%s/pf_key.sock", closed);
		setenv("IPSEC_PFKEY_SOCKET", path, 1);
		MUST(chmod(closed, 0) == 0);
		if (fork() == 0) {
			MUST(setgid(65534) == 0 && setuid(65534) == 0);
			FAILS(socket(PF_KEY, SOCK_RAW, PF_KEY_V2), EPERM);
			exit(0);
		}
		MUST(wait(&child) > 0 && rmdir(closed) == 0);
		exit(child == 0 ? 0 : 1);
	}
	wait_for(child);
}

static void nobody_there(void)
{
	char path[200];
	int fd, at = open("/tmp", O_RDONLY);
	struct sockaddr_un full;
	MUST(at >= 0);
	setenv("IPSEC_PFKEY_SOCKET", "/nowhere/pf_key.sock", 1);
	FAILS(socket(PF_KEY, SOCK_RAW, PF_KEY_V2), EAFNOSUPPORT);
	/* Too long for an address: nothing is cut and connected to. */
	memset(path, 'x', sizeof path);
	path[0] = '/';
	path[sizeof path - 1] = 0;
	setenv("IPSEC_PFKEY_SOCKET", path, 1);
	FAILS(socket(PF_KEY, SOCK_RAW, PF_KEY_V2), EAFNOSUPPORT);
	/* Other families are not looked at. */
	memset(&full, 0, sizeof full);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	MUST(fd == at + 1);
}

static void close_on_exec(void)
{
	int plain = key_socket(0), closed = key_socket(SOCK_CLOEXEC);
	char first[20], second[20];
	pid_t child;
	MUST(fcntl(plain, F_GETFD) == 0);
	MUST(fcntl(closed, F_GETFD) == FD_CLOEXEC);
	sprintf(first, "%d", plain);
	sprintf(second, "%d", closed);
	child = fork();
	if (child == 0) {
		execl("/proc/self/exe", "calls", "after_exec", first, second, (char *)0);
		_exit(9);
	}
	wait_for(child);
	works(plain, 2);
	works(closed, 3);
}

static void after_exec(char **argv)
{
	works(atoi(argv[2]), 1);
	FAILS(fcntl(atoi(argv[3]), F_GETFD), EBADF);
}

static void nonblocking(void)
{
	int fd = key_socket(SOCK_NONBLOCK);
	MUST(fcntl(fd, F_GETFL) & O_NONBLOCK);
	FAILS(read(fd, buffer.octets, room), EAGAIN);
	FAILS(recv(fd, buffer.octets, room, 0), EAGAIN);
	ask(fd, 1);
	is_answer(read(fd, buffer.octets, room), 1);
	MUST(fcntl(fd, F_SETFL, 0) == 0);
	MUST(!(fcntl(fd, F_GETFL) & O_NONBLOCK));
	ask(fd, 2);
	is_answer(read(fd, buffer.octets, room), 2);
	MUST(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	FAILS(read(fd, buffer.octets, room), EAGAIN);
}

static void no_addresses(void)
{
	int fd = key_socket(0);
	union {
		struct sockaddr any;
		struct sockaddr_storage most;
		struct sockaddr_un path;
	} at;
	socklen_t len = sizeof at;
	memset(&at, 0xee, sizeof at);
	at.path.sun_family = AF_UNIX;
	FAILS(bind(fd, &at.any, sizeof at.path), EOPNOTSUPP);
	FAILS(connect(fd, &at.any, sizeof at.path), EOPNOTSUPP);
	FAILS(listen(fd, 1), EOPNOTSUPP);
	FAILS(accept(fd, 0, 0), EOPNOTSUPP);
	FAILS(accept4(fd, 0, 0, 0), EOPNOTSUPP);
	FAILS(shutdown(fd, SHUT_RDWR), EOPNOTSUPP);
	MUST(getsockname(fd, &at.any, &len) == 0);
	MUST(at.any.sa_family == PF_KEY && len == sizeof(struct sockaddr));
	len = 2;
	memset(&at, 0xee, sizeof at);
	MUST(getpeername(fd, &at.any, &len) == 0);
	MUST(at.any.sa_family == PF_KEY && at.any.sa_data[0] == (char)0xee && len == sizeof(struct sockaddr));
	FAILS(getsockname(fd, 0, &len), EFAULT);
	works(fd, 1);
}

static void options(void)
{
	int fd = key_socket(0), value = 1;
	struct timeval time = { 3, 0 };
	socklen_t len = sizeof time;
	MUST(option(fd, SO_DOMAIN) == PF_KEY);
	MUST(option(fd, SO_TYPE) == SOCK_RAW);
	MUST(option(fd, SO_PROTOCOL) == PF_KEY_V2);
	MUST(option(fd, SO_ERROR) == 0);
	MUST(option(fd, SO_ACCEPTCONN) == 0);
	/* The kernel says twice what was asked for (socket(7)). */
	put_option(fd, SO_RCVBUF, 100000);
	MUST(option(fd, SO_RCVBUF) == 200000);
	put_option(fd, SO_SNDBUF, 50000);
	MUST(option(fd, SO_SNDBUF) == 100000);
	MUST(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time) == 0);
	time.tv_sec = 0;
	MUST(getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, &len) == 0);
	MUST(time.tv_sec == 3);
	/* What marks the socket is not the program's to change. */
	put_option(fd, SO_PRIORITY, 3);
	MUST(option(fd, SO_DOMAIN) == PF_KEY);
	MUST(option(fd, SO_PRIORITY) == 0);
	FAILS(setsockopt(fd, IPPROTO_IP, 1, &value, sizeof value), EOPNOTSUPP);
	FAILS(setsockopt(fd, 2, 1, &value, sizeof value), EOPNOTSUPP);
	len = sizeof value;
	FAILS(getsockopt(fd, IPPROTO_IP, 1, &value, &len), EOPNOTSUPP);
	FAILS(setsockopt(fd, SOL_SOCKET, SO_USELOOPBACK, 0, sizeof value), EFAULT);
	FAILS(setsockopt(fd, SOL_SOCKET, SO_USELOOPBACK, &value, 1), EINVAL);
	FAILS(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, 0), EFAULT);
	/* A short answer is cut, not written past its end. */
	value = -1;
	len = 1;
	MUST(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len) == 0 && len == 1);
	MUST(value == (-256 | SOCK_RAW));
	works(fd, 1);
}

static void time_limits(void)
{
	int fd = key_socket(0);
	struct timeval limit = { 0, 100000 };
	double start;
	pid_t daemon = atoi(getenv("DAEMON"));
	MUST(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
	start = now();
	FAILS(read(fd, buffer.octets, room), EAGAIN);
	MUST(now() - start > 0.09 && now() - start < 10);
	/* A service that does not answer keeps a writer no longer than it said. */
	MUST(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0);
	MUST(kill(daemon, SIGSTOP) == 0);
	start = now();
	ask(fd, 1);
	start = now() - start;
	MUST(kill(daemon, SIGCONT) == 0);
	MUST(start > 0.09);
	MUST(start < 2);
	is_answer(recv(fd, buffer.octets, room, 0), 1);
}

static void loopback(void)
{
	int fd = key_socket(0), other = key_socket(0);
	struct sadb_msg flush = question(7);
	MUST(option(fd, SO_USELOOPBACK) != 0);
	put_option(fd, SO_USELOOPBACK, 0);
	MUST(option(fd, SO_USELOOPBACK) == 0);
	ask(fd, 1);
	/* Everybody else hears it. */
	flush.sadb_msg_type = SADB_FLUSH;
	MUST(write(fd, &flush, sizeof flush) == sizeof flush);
	MUST(recv(other, buffer.octets, room, 0) == sizeof flush);
	MUST(buffer.base.sadb_msg_type == SADB_FLUSH && buffer.base.sadb_msg_seq == 7);
	hears_nothing(fd);
	put_option(fd, SO_USELOOPBACK, 5);
	MUST(option(fd, SO_USELOOPBACK) == 1);
	works(fd, 2);
	hears_nothing(fd);
}

/* Every way to write, and the answer is there when it returns. */
static void writing(void)
{
	int fd = key_socket(0), n;
	struct sadb_msg base, other;
	struct iovec parts[3], whole[2];
	struct msghdr message;
	struct mmsghdr many[2];
	struct sockaddr_un at;
	memset(&message, 0, sizeof message);
	memset(many, 0, sizeof many);
	memset(&at, 0, sizeof at);
	for (n = 1; n <= 300; n++) {
		base = question(n);
		MUST(write(fd, &base, sizeof base) == 16);
		hears_now(fd, n);
		MUST(send(fd, &base, sizeof base, 0) == 16);
		hears_now(fd, n);
		MUST(sendto(fd, &base, sizeof base, 0, (struct sockaddr *)&at, sizeof at) == 16);
		hears_now(fd, n);
		/* The type is in the second part. */
		parts[0].iov_base = &base;
		parts[0].iov_len = 1;
		parts[1].iov_base = 0;
		parts[1].iov_len = 0;
		parts[2].iov_base = (char *)&base + 1;
		parts[2].iov_len = sizeof base - 1;
		MUST(writev(fd, parts, 3) == 16);
		hears_now(fd, n);
		message.msg_iov = parts;
		message.msg_iovlen = 3;
		MUST(sendmsg(fd, &message, 0) == 16);
		hears_now(fd, n);
	}
	other = question(9999);
	whole[0].iov_base = &base;
	whole[1].iov_base = &other;
	for (n = 0; n < 2; n++) {
		whole[n].iov_len = sizeof base;
		many[n].msg_hdr.msg_iov = whole + n;
		many[n].msg_hdr.msg_iovlen = 1;
	}
	MUST(sendmmsg(fd, many, 2, 0) == 2);
	MUST(many[0].msg_len == 16 && many[1].msg_len == 16);
	hears_now(fd, 300);
	hears_now(fd, 9999);
	/* No octets are no message, and not the end of the socket. */
	MUST(write(fd, &base, 0) == 0);
	MUST(send(fd, &base, 0, 0) == 0);
	hears_nothing(fd);
	/* A message that is not as long as it says (pf_key(7)). */
	other.sadb_msg_len = 77;
	MUST(write(fd, &other, sizeof other) == 16);
	MUST(recv(fd, buffer.octets, room, MSG_DONTWAIT) == 16 && buffer.base.sadb_msg_errno == EMSGSIZE);
	FAILS(write(fd, nowhere, 16), EFAULT);
	FAILS(sendmsg(fd, 0, 0), EFAULT);
	FAILS(writev(fd, parts, minus_one), EINVAL);
	works(fd, 1);
}

/* Every way to read: one record each, cut to the buffer, with no address. */
static void reading(void)
{
	int fd = key_socket(0), n, ready = 0;
	struct iovec parts[2];
	struct msghdr message;
	struct mmsghdr many[4];
	struct sockaddr_storage at;
	socklen_t len;
	char records[4][64];
	struct timespec no_time = { 0, 0 };
	struct iovec each[4];
	ask(fd, 1);
	MUST(ioctl(fd, FIONREAD, &ready) == 0 && ready == 16);
	MUST(recv(fd, buffer.octets, room, MSG_PEEK) == 16);
	is_answer(read(fd, buffer.octets, room), 1);
	/* Two records are two reads. */
	ask(fd, 2);
	ask(fd, 3);
	is_answer(read(fd, buffer.octets, room), 2);
	is_answer(recv(fd, buffer.octets, room, 0), 3);
	/* What does not fit is gone. */
	ask(fd, 4);
	ask(fd, 5);
	memset(&buffer, 0xee, sizeof buffer);
	MUST(read(fd, buffer.octets, 12) == 12);
	MUST(buffer.base.sadb_msg_seq == 4 && (unsigned char)buffer.octets[12] == 0xee);
	is_answer(read(fd, buffer.octets, room), 5);
	ask(fd, 6);
	MUST(recv(fd, buffer.octets, 4, MSG_TRUNC) == 16);
	ask(fd, 7);
	memset(&message, 0, sizeof message);
	memset(&at, 0xee, sizeof at);
	parts[0].iov_base = buffer.octets;
	parts[0].iov_len = 5;
	parts[1].iov_base = buffer.octets + 5;
	parts[1].iov_len = 4;
	message.msg_iov = parts;
	message.msg_iovlen = 2;
	message.msg_name = &at;
	message.msg_namelen = sizeof at;
	MUST(recvmsg(fd, &message, 0) == 9);
	MUST(message.msg_flags & MSG_TRUNC);
	MUST(message.msg_namelen == 0 && *(unsigned char *)&at == 0xee);
	ask(fd, 8);
	parts[1].iov_len = 100;
	is_answer(readv(fd, parts, 2), 8);
	ask(fd, 9);
	len = sizeof at;
	is_answer(recvfrom(fd, buffer.octets, room, 0, (struct sockaddr *)&at, &len), 9);
	MUST(len == 0 && *(unsigned char *)&at == 0xee);
	for (n = 0; n < 4; n++) {
		each[n].iov_base = records[n];
		each[n].iov_len = sizeof records[n];
		memset(many + n, 0, sizeof many[n]);
		many[n].msg_hdr.msg_iov = each + n;
		many[n].msg_hdr.msg_iovlen = 1;
	}
	for (n = 0; n < 3; n++)
		ask(fd, 10 + n);
	MUST(recvmmsg(fd, many, 4, MSG_DONTWAIT, 0) == 3);
	for (n = 0; n < 3; n++) {
		memcpy(&buffer, records[n], sizeof buffer.base);
		is_answer(many[n].msg_len, 10 + n);
	}
	FAILS(recvmmsg(fd, many, 4, MSG_DONTWAIT, 0), EAGAIN);
	ask(fd, 14);
	ask(fd, 15);
	MUST(recvmmsg(fd, many, 4, MSG_WAITFORONE, 0) == 2);
	ask(fd, 16);
	ask(fd, 17);
	MUST(recvmmsg(fd, many, 4, 0, &no_time) == 1);
	hears_now(fd, 17);
	/* Room for nothing: read() takes no record, recv() takes one, and neither is the end. */
	ask(fd, 20);
	MUST(read(fd, buffer.octets, 0) == 0);
	MUST(recv(fd, buffer.octets, 0, 0) == 0);
	works(fd, 21);
}

static void waiting(void)
{
	int fd = key_socket(0), edge = epoll_create1(0), level = epoll_create1(0);
	struct pollfd one;
	struct epoll_event event, told;
	struct timeval none = { 0, 0 };
	struct timespec nothing = { 0, 0 };
	fd_set set;
	one.fd = fd;
	one.events = POLLIN | POLLOUT;
	event.data.fd = fd;
	event.events = EPOLLIN | EPOLLET;
	MUST(epoll_ctl(edge, EPOLL_CTL_ADD, fd, &event) == 0);
	event.events = EPOLLIN;
	MUST(epoll_ctl(level, EPOLL_CTL_ADD, fd, &event) == 0);
	MUST(poll(&one, 1, 0) == 1 && one.revents == POLLOUT);
	FD_ZERO(&set);
	FD_SET(fd, &set);
	MUST(select(fd + 1, &set, 0, 0, &none) == 0);
	MUST(epoll_wait(level, &told, 1, 0) == 0);
	MUST(epoll_wait(edge, &told, 1, 0) == 0);
	ask(fd, 1);
	/* OpenIKED gives an answer one millisecond; it is there already. */
	MUST(poll(&one, 1, 0) == 1 && one.revents == (POLLIN | POLLOUT));
	MUST(ppoll(&one, 1, &nothing, 0) == 1);
	FD_SET(fd, &set);
	MUST(select(fd + 1, &set, 0, 0, &none) == 1 && FD_ISSET(fd, &set));
	MUST(pselect(fd + 1, &set, 0, 0, &nothing, 0) == 1);
	MUST(epoll_wait(level, &told, 1, 0) == 1 && told.data.fd == fd);
	MUST(epoll_wait(level, &told, 1, 0) == 1);
	MUST(epoll_wait(edge, &told, 1, 0) == 1);
	MUST(epoll_wait(edge, &told, 1, 0) == 0);
	hears_now(fd, 1);
	one.events = POLLIN;
	MUST(poll(&one, 1, 0) == 0);
	MUST(epoll_wait(level, &told, 1, 0) == 0);
	ask(fd, 2);
	MUST(epoll_wait(edge, &told, 1, 0) == 1);
	hears_now(fd, 2);
}

static void copies(void)
{
	int fd = key_socket(0), other[5], n;
	other[0] = dup(fd);
	other[1] = dup2(fd, 200);
	other[2] = dup3(fd, 201, O_CLOEXEC);
	other[3] = fcntl(fd, F_DUPFD, 300);
	other[4] = fcntl(fd, F_DUPFD_CLOEXEC, 301);
	MUST(other[1] == 200 && other[2] == 201 && other[3] >= 300 && other[4] >= 301);
	MUST(fcntl(201, F_GETFD) == FD_CLOEXEC && fcntl(other[4], F_GETFD) == FD_CLOEXEC);
	close(fd);
	for (n = 0; n < 5; n++) {
		works(other[n], n);
		FAILS(shutdown(other[n], SHUT_RDWR), EOPNOTSUPP);
		/* One socket: asked through one, heard through the next. */
		ask(other[n], 100 + n);
		hears_now(other[(n + 1) % 5], 100 + n);
	}
	MUST(dup2(other[0], other[0]) == other[0]);
	FAILS(dup(fd), EBADF);
	works(other[0], 9);
}

/* A number that was a PF_KEY socket is something else now, and the other way round. */
static void numbers(void)
{
	int fd = key_socket(0), pipes[2], turn, domain;
	socklen_t len;
	struct sockaddr_un at;
	for (turn = 0; turn < 3; turn++) {
		works(fd, turn);
		MUST(pipe(pipes) == 0);
		MUST(dup2(pipes[0], fd) == fd);
		MUST(write(pipes[1], "ab", 2) == 2);
		MUST(read(fd, buffer.octets, room) == 2);
		close(pipes[1]);
		/* The end of a file, as it is for a pipe. */
		MUST(read(fd, buffer.octets, room) == 0);
		close(pipes[0]);
		close(fd);
		MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pipes) == 0);
		MUST(pipes[0] == fd);
		len = sizeof domain;
		MUST(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX);
		len = sizeof at;
		MUST(getsockname(fd, (struct sockaddr *)&at, &len) == 0 && at.sun_family == AF_UNIX);
		MUST(shutdown(fd, SHUT_RDWR) == 0);
		MUST(read(fd, buffer.octets, room) == 0);
		close(pipes[1]);
		close(fd);
		MUST(key_socket(0) == fd);
	}
}

static void forks(void)
{
	int fd = key_socket(0);
	pid_t child;
	ask(fd, 1);
	child = fork();
	if (child == 0) {
		hears_now(fd, 1);
		works(fd, 2);
		ask(fd, 3);
		exit(0);
	}
	wait_for(child);
	/* What the child asked is the parent's to hear: one socket. */
	hears_now(fd, 3);
	hears_nothing(fd);
	works(fd, 4);
}

/* A child that shares our memory and not our descriptors: what it finds at a number says nothing about ours. */
static void vforks(void)
{
	int fd = key_socket(0), status;
	volatile int went = 0;
	pid_t child = vfork();
	if (child == 0) {
		int other = open("/dev/null", O_RDWR);
		went = dup2(other, fd) == fd && read(fd, buffer.octets, room) == 0 && write(fd, "x", 1) == 1;
		_exit(0);
	}
	MUST(waitpid(child, &status, 0) == child && went);
	FAILS(shutdown(fd, SHUT_RDWR), EOPNOTSUPP);
	works(fd, 1);
}

/* To another process, as iked does. */
static void passing(void)
{
	int pair[2], fd, spare;
	char octet = 'x';
	struct iovec part;
	struct msghdr message;
	union {
		struct cmsghdr header;
		char octets[CMSG_SPACE(sizeof(int))];
	} control;
	struct cmsghdr *header;
	pid_t child;
	part.iov_base = &octet;
	part.iov_len = 1;
	memset(&message, 0, sizeof message);
	message.msg_iov = &part;
	message.msg_iovlen = 1;
	message.msg_control = control.octets;
	message.msg_controllen = sizeof control.octets;
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	child = fork();
	if (child == 0) {
		/* The number it will get has been looked at, and was not ours. */
		spare = dup(0);
		FAILS(send(spare, "x", 1, 0), ENOTSOCK);
		close(spare);
		MUST(recvmsg(pair[1], &message, 0) == 1);
		header = CMSG_FIRSTHDR(&message);
		MUST(header && header->cmsg_type == SCM_RIGHTS);
		memcpy(&fd, CMSG_DATA(header), sizeof fd);
		MUST(fd == spare);
		FAILS(shutdown(fd, SHUT_RDWR), EOPNOTSUPP);
		works(fd, 1);
		exit(0);
	}
	fd = key_socket(0);
	memset(&control, 0, sizeof control);
	header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(header), &fd, sizeof fd);
	MUST(sendmsg(pair[0], &message, 0) == 1);
	wait_for(child);
	works(fd, 2);
}

static int heard;
static void *reader(void *at)
{
	int fd = *(int *)at;
	char octets[64];
	while (heard < 100) {
		MUST(recv(fd, octets, sizeof octets, 0) == 16);
		heard++;
	}
	return 0;
}

/* One thread reads, another writes: the answer may be gone before the writer sees it. */
static void two_threads(void)
{
	int fd = key_socket(0), n;
	pthread_t thread;
	double start = now();
	MUST(pthread_create(&thread, 0, reader, &fd) == 0);
	for (n = 0; n < 100; n++)
		ask(fd, n);
	MUST(pthread_join(thread, 0) == 0);
	MUST(now() - start < 4);
}

/* The same with a reader in another process. */
static void two_processes(void)
{
	int fd = key_socket(0), n;
	double start = now();
	pid_t child = fork();
	if (child == 0) {
		reader(&fd);
		_exit(0);
	}
	for (n = 0; n < 100; n++)
		ask(fd, n);
	wait_for(child);
	MUST(now() - start < 4);
}

/* Nobody reads: writing goes on, and what fits comes in its order. */
static void unread(void)
{
	int fd = key_socket(0), n;
	double start = now();
	for (n = 0; n < 300; n++)
		ask(fd, n);
	MUST(now() - start < 10);
	for (n = 0; n < 300; n++)
		is_answer(recv(fd, buffer.octets, room, 0), n);
	hears_nothing(fd);
}

static void on_alarm(int number)
{
	(void)number;
}

static void signals(void)
{
	int fd = key_socket(0), n;
	struct sigaction action;
	struct itimerval often = { { 0, 2000 }, { 0, 2000 } }, never = { { 0, 0 }, { 0, 0 } };
	memset(&action, 0, sizeof action);
	action.sa_handler = on_alarm;
	MUST(sigaction(SIGALRM, &action, 0) == 0);
	MUST(setitimer(ITIMER_REAL, &often, 0) == 0);
	FAILS(recv(fd, buffer.octets, room, 0), EINTR);
	FAILS(read(fd, buffer.octets, room), EINTR);
	/* A message that was taken is not taken twice. */
	for (n = 0; n < 300; n++)
		works(fd, n);
	MUST(setitimer(ITIMER_REAL, &never, 0) == 0);
	hears_nothing(fd);
}

/* errno is as it was when a call succeeds. */
static void quiet_errno(void)
{
	int fd = key_socket(0), pipes[2];
	struct sadb_msg base = question(1);
	MUST(pipe(pipes) == 0);
	errno = 4711;
	MUST(send(fd, &base, sizeof base, 0) == 16 && errno == 4711);
	MUST(read(fd, buffer.octets, room) == 16 && errno == 4711);
	MUST(write(pipes[1], "x", 1) == 1 && errno == 4711);
	MUST(read(pipes[0], buffer.octets, 1) == 1 && errno == 4711);
	MUST(dup(fd) >= 0 && errno == 4711);
}

/* What makes no sense is refused as a kernel refuses it, and not looked into first. */
static void nonsense(void)
{
	int fd = key_socket(0), n;
	struct sadb_msg base = question(1);
	static struct iovec parts[1100];
	static struct mmsghdr many[1100];
	struct msghdr message;
	struct timespec negative = { -1, 0 }, long_second = { 0, 1000000000 };
	for (n = 0; n < 1100; n++) {
		parts[n].iov_base = &base;
		parts[n].iov_len = n ? 0 : sizeof base;
		many[n].msg_hdr.msg_iov = parts;
		many[n].msg_hdr.msg_iovlen = 1;
	}
	MUST(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	FAILS(readv(fd, parts, minus_one), EINVAL);
	FAILS(readv(fd, parts, 1100), EINVAL);
	FAILS(readv(fd, nowhere, 1), EFAULT);
	FAILS(writev(fd, parts, 1100), EINVAL);
	FAILS(recv(fd, nowhere, 16, 0), EAGAIN);
	memset(&message, 0, sizeof message);
	message.msg_iov = parts;
	message.msg_iovlen = 1100;
	FAILS(sendmsg(fd, &message, 0), EMSGSIZE);
	FAILS(recvmsg(fd, &message, 0), EMSGSIZE);
	message.msg_iovlen = (size_t)minus_one;
	FAILS(sendmsg(fd, &message, 0), EMSGSIZE);
	FAILS(recvmsg(fd, &message, 0), EMSGSIZE);
	FAILS(recvmmsg(fd, many, 4, 0, &negative), EINVAL);
	FAILS(recvmmsg(fd, many, 4, 0, &long_second), EINVAL);
	MUST(sendmmsg(fd, many, 0, 0) == 0);
	MUST(fcntl(fd, F_SETFL, 0) == 0);
	works(fd, 2);
	/* Longer than the room for it. */
	put_option(fd, SO_SNDBUF, 4096);
	{
		static char octets[1 << 20];
		memcpy(octets, &base, sizeof base);
		FAILS(write(fd, octets, sizeof octets), EMSGSIZE);
		FAILS(send(fd, octets, sizeof octets, 0), EMSGSIZE);
	}
	works(fd, 3);
}

/* A number that is taken by force, and one that comes by force. */
static void taken_away(void)
{
	int fd = key_socket(0), other, pidfd, pipes[2], status;
	MUST(syscall(SYS_close_range, fd, fd, 0) == 0);
	MUST(pipe(pipes) == 0 && pipes[0] == fd);
	MUST(write(pipes[1], "ab", 2) == 2);
	MUST(read(fd, buffer.octets, room) == 2);
	MUST(close(pipes[1]) == 0 && read(fd, buffer.octets, room) == 0);
	closefrom(fd);
	MUST(key_socket(0) == fd);
	works(fd, 1);
	/* From another process that has it; a number that has been looked at before, and was not ours. */
	status = dup(0);
	FAILS(send(status, "x", 1, 0), ENOTSOCK);
	close(status);
	MUST((pidfd = syscall(SYS_pidfd_open, getpid(), 0)) >= 0);
	MUST(dup2(pidfd, 100) == 100 && close(pidfd) == 0);
	MUST((other = pidfd_getfd(100, fd, 0)) == status);
	FAILS(shutdown(other, SHUT_RDWR), EOPNOTSUPP);
	works(other, 2);
}

/* Programs started in the ways that are no fork() of the C library's. */
static void spawned(void)
{
	int fd = key_socket(SOCK_CLOEXEC), status = -1;
	char *words[] = { "calls", "after_exec", "77", "78", 0 };
	posix_spawn_file_actions_t actions;
	pid_t child;
	MUST(posix_spawn_file_actions_init(&actions) == 0);
	MUST(posix_spawn_file_actions_adddup2(&actions, fd, 77) == 0);
	MUST(posix_spawn(&child, "/proc/self/exe", &actions, 0, words, environ) == 0);
	wait_for(child);
	child = vfork();
	if (child == 0) {
		dup2(fd, 77);
		execl("/proc/self/exe", "calls", "after_exec", "77", "78", (char *)0);
		_exit(9);
	}
	MUST(waitpid(child, &status, 0) == child && status == 0);
	MUST(system("test -n \"$LD_PRELOAD\"") == 0);
	works(fd, 2);
}

static volatile int over;
static void *busy_reader(void *at)
{
	char octets[64];
	int zero = *(int *)at;
	while (!over)
		MUST(read(zero, octets, sizeof octets) == sizeof octets);
	return 0;
}

/* Who reads something else has not read our answer: it is there when write() returns. */
static void others_read(void)
{
	int fd = key_socket(0), zero = open("/dev/zero", O_RDONLY), n;
	pthread_t thread;
	pid_t child = fork();
	if (child == 0) {
		alarm(60);
		busy_reader(&zero);
	}
	MUST(pthread_create(&thread, 0, busy_reader, &zero) == 0);
	for (n = 0; n < 300; n++)
		works(fd, n);
	over = 1;
	MUST(pthread_join(thread, 0) == 0);
	MUST(kill(child, SIGKILL) == 0 && waitpid(child, &n, 0) == child);
}

static void *forker(void *at)
{
	int fd = *(int *)at, n;
	for (n = 0; n < 50; n++) {
		pid_t child = fork();
		if (child == 0) {
			/* Only what a signal handler may do: the other thread may hold any lock. */
			int own = socket(PF_KEY, SOCK_RAW, PF_KEY_V2), copy = dup2(fd, 90);
			struct sadb_msg base = question(1000 + n);
			_exit(own >= 0 && copy == 90 && write(own, &base, sizeof base) == sizeof base &&
				recv(own, &base, sizeof base, MSG_DONTWAIT) == sizeof base &&
				base.sadb_msg_seq == 1000 + (unsigned)n ? 0 : 1);
		}
		wait_for(child);
	}
	over = 1;
	return 0;
}

/* One thread forks while another is in the middle of a call. */
static void forks_beside_threads(void)
{
	int fd = key_socket(0), n;
	pthread_t thread;
	MUST(pthread_create(&thread, 0, forker, &fd) == 0);
	for (n = 0; !over; n++)
		works(fd, n);
	MUST(pthread_join(thread, 0) == 0);
}

static int handled_fd, handled;
static void on_signal(int number)
{
	struct sadb_msg base = question(5000);
	(void)number;
	errno = 0;
	if (write(handled_fd, &base, sizeof base) == sizeof base &&
	    recv(handled_fd, &base, sizeof base, MSG_DONTWAIT) == sizeof base && base.sadb_msg_seq == 5000)
		handled++;
}

/* Calls from a handler, which comes in the middle of others. */
static void in_handlers(void)
{
	int fd = key_socket(0), n = 0;
	struct sigaction action;
	struct itimerval often = { { 0, 3000 }, { 0, 3000 } }, never = { { 0, 0 }, { 0, 0 } };
	handled_fd = key_socket(0);
	memset(&action, 0, sizeof action);
	action.sa_handler = on_signal;
	action.sa_flags = SA_RESTART;
	MUST(sigaction(SIGALRM, &action, 0) == 0);
	MUST(setitimer(ITIMER_REAL, &often, 0) == 0);
	while (handled < 50)
		works(fd, n++);
	MUST(setitimer(ITIMER_REAL, &never, 0) == 0);
}

/* Listens where the service is thought to be, and takes one client and its first question. */
static int impostor(char *path, int *listener)
{
	struct sockaddr_un at;
	memset(&at, 0, sizeof at);
	at.sun_family = AF_UNIX;
	sprintf(at.sun_path, "/tmp/impostor.%d", getpid());
	unlink(at.sun_path);
	strcpy(path, at.sun_path);
	MUST((*listener = socket(AF_UNIX, SOCK_SEQPACKET, 0)) >= 0);
	MUST(bind(*listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(*listener, 1) == 0);
	return setenv("IPSEC_PFKEY_SOCKET", path, 1);
}

/* What a service says that is none, or has been taken over, to the question behind socket(). */
static void play(int way)
{
	char path[108], octets[300];
	int listener, fd;
	double start = now();
	pid_t child;
	struct itimerval often = { { 0, 2000 }, { 0, 2000 } };
	struct sigaction action;
	MUST(impostor(path, &listener) == 0);
	child = fork();
	if (child == 0) {
		alarm(60);
		fd = accept(listener, 0, 0);
		MUST(read(fd, octets, sizeof octets) == 24);
		switch (way) {
		case 0: /* It talks and talks, and never answers. */
			memset(octets + 24, 0xff, sizeof octets - 24);
			octets[1] = 3;
			octets[8] ^= 1;
			signal(SIGPIPE, SIG_DFL);
			for (;;)
				(void)!write(fd, octets, sizeof octets);
		case 1: /* It says nothing. */
			pause();
			break;
		case 2: /* Less than a message. */
			MUST(write(fd, octets, 15) == 15);
			break;
		case 3: /* No octets, and the end. */
			break;
		case 4: /* An error that is none of this socket. */
			octets[1] = 0;
			octets[2] = (char)255;
			MUST(write(fd, octets, 16) == 16);
			break;
		}
		_exit(0);
	}
	close(listener);
	memset(&action, 0, sizeof action);
	action.sa_handler = on_alarm;
	MUST(sigaction(SIGALRM, &action, 0) == 0);
	MUST(setitimer(ITIMER_REAL, &often, 0) == 0);
	listener = dup(0);
	close(listener);
	if (way < 2)
		FAILS(socket(PF_KEY, SOCK_RAW, PF_KEY_V2), ETIMEDOUT);
	else
		FAILS(socket(PF_KEY, SOCK_RAW, PF_KEY_V2), way < 4 ? EAFNOSUPPORT : 255);
	MUST(now() - start < 20);
	MUST(dup(0) == listener);
	unlink(path);
	kill(child, SIGKILL);
	_exit(0);
}

static void impostors(void)
{
	pid_t child[5];
	int way;
	for (way = 0; way < 5; way++) {
		child[way] = fork();
		if (child[way] == 0)
			play(way);
	}
	for (way = 0; way < 5; way++)
		wait_for(child[way]);
}

/* Records with descriptors, of any length: what comes is octets, no more than there is room for. */
static void hostile_records(void)
{
	char path[108];
	static char octets[100000];
	int listener, fd, spare, ready, done[2];
	struct iovec part;
	struct msghdr message;
	struct mmsghdr many[3];
	struct iovec each[3];
	union {
		struct cmsghdr header;
		char octets[CMSG_SPACE(sizeof(int))];
	} control;
	pid_t child;
	MUST(impostor(path, &listener) == 0);
	MUST(pipe(done) == 0);
	memset(&message, 0, sizeof message);
	memset(&control, 0, sizeof control);
	part.iov_base = octets;
	message.msg_iov = &part;
	message.msg_iovlen = 1;
	message.msg_control = control.octets;
	message.msg_controllen = sizeof control.octets;
	child = fork();
	if (child == 0) {
		close(done[0]);
		fd = accept(listener, 0, 0);
		MUST(read(fd, octets, sizeof octets) == 24);
		MUST(write(fd, octets, 24) == 24);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
		part.iov_len = 50;
		MUST(sendmsg(fd, &message, 0) == 50);
		MUST(sendmsg(fd, &message, 0) == 50);
		MUST(write(fd, octets, sizeof octets) == sizeof octets);
		MUST(write(fd, octets, 1) == 1);
		MUST(write(fd, octets, 20) == 20);
		exit(0);
	}
	close(done[1]);
	close(listener);
	fd = key_socket(0);
	/* It has said all and has gone. */
	MUST(read(done[0], octets, 1) == 0);
	spare = dup(0);
	close(spare);
	part.iov_len = sizeof octets;
	MUST(recvmsg(fd, &message, 0) == 50);
	MUST(message.msg_controllen == 0 && message.msg_control == control.octets && message.msg_flags == 0);
	MUST(recv(fd, octets, sizeof octets, 0) == 50);
	MUST(dup(0) == spare);
	MUST(ioctl(fd, FIONREAD, &ready) == 0 && ready > 0);
	memset(octets, 0xee, sizeof octets);
	MUST(recv(fd, octets, 32, MSG_PEEK | MSG_TRUNC) == 100000);
	MUST(recv(fd, octets, 32, 0) == 32 && (unsigned char)octets[32] == 0xee);
	/* The end that lies behind the last record is told by the next call. */
	for (ready = 0; ready < 3; ready++) {
		each[ready].iov_base = octets;
		each[ready].iov_len = sizeof octets;
		memset(many + ready, 0, sizeof many[ready]);
		many[ready].msg_hdr.msg_iov = each + ready;
		many[ready].msg_hdr.msg_iovlen = 1;
	}
	MUST(recvmmsg(fd, many, 3, 0, 0) == 2);
	MUST(many[0].msg_len == 1 && many[1].msg_len == 20);
	FAILS(recvmmsg(fd, many, 3, 0, 0), ENETDOWN);
	FAILS(recvmmsg(fd, many, 3, MSG_DONTWAIT, 0), EAGAIN);
	wait_for(child);
	unlink(path);
}

struct policy {
	uint16_t len, exttype, type;
	uint8_t dir, reserved;
	uint32_t id, priority;
};

/* What key managers say of their own sockets: leave their packets alone. */
static void policies(void)
{
	int four = socket(AF_INET, SOCK_DGRAM, 0), six = socket(AF_INET6, SOCK_DGRAM, 0), dir;
	struct policy policy;
	memset(&policy, 0, sizeof policy);
	policy.len = sizeof policy / 8;
	policy.exttype = 18;
	for (dir = 1; dir <= 2; dir++) {
		policy.dir = dir;
		policy.type = 4;
		MUST(setsockopt(four, IPPROTO_IP, 16, &policy, sizeof policy) == 0);
		MUST(six < 0 || setsockopt(six, IPPROTO_IPV6, 34, &policy, sizeof policy) == 0);
		/* Protection is not to be had this way, and nobody claims it was. */
		policy.type = 2;
		MUST(setsockopt(four, IPPROTO_IP, 16, &policy, sizeof policy) == -1);
		policy.type = 4;
		MUST(setsockopt(four, IPPROTO_IP, 16, &policy, 8) == -1);
	}
}

/* Nothing happens on it any more, and whatever is sent is refused. No SIGPIPE. */
static void is_silent(int fd)
{
	struct sadb_msg base = question(1);
	struct pollfd one;
	int value = 0;
	socklen_t len = sizeof value;
	one.fd = fd;
	one.events = POLLIN;
	MUST(poll(&one, 1, 50) == 0);
	FAILS(recv(fd, buffer.octets, room, MSG_DONTWAIT), EAGAIN);
	FAILS(write(fd, &base, sizeof base), ENETDOWN);
	FAILS(send(fd, &base, sizeof base, 0), ENETDOWN);
	FAILS(setsockopt(fd, SOL_SOCKET, SO_USELOOPBACK, &value, sizeof value), ENETDOWN);
	MUST(poll(&one, 1, 0) == 0);
	MUST(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &len) == 0 && value == PF_KEY);
	MUST(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len) == 0 && value == SOCK_RAW);
}

/* The data plane goes while its sockets are open. Each descriptor is told once, however it reads. */
static void service_gone(void)
{
	int fd[9], n, watch, copy;
	struct pollfd one;
	struct iovec part;
	struct mmsghdr many;
	struct epoll_event event;
	struct timeval limit = { 0, 100000 };
	struct sadb_msg base = question(1);
	double start;
	for (n = 0; n < 9; n++)
		fd[n] = key_socket(n == 1 ? SOCK_NONBLOCK : n == 2 ? SOCK_CLOEXEC : 0);
	MUST(setsockopt(fd[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
	MUST((copy = dup(fd[7])) >= 0);
	MUST((watch = epoll_create1(0)) >= 0);
	memset(&event, 0, sizeof event);
	event.events = EPOLLIN;
	MUST(epoll_ctl(watch, EPOLL_CTL_ADD, fd[0], &event) == 0);
	MUST(kill(atoi(getenv("DAEMON")), SIGKILL) == 0);
	for (n = 0; n < 9; n++) {
		one.fd = fd[n];
		one.events = POLLIN;
		MUST(poll(&one, 1, 10000) == 1 && one.revents & POLLIN);
	}
	MUST(epoll_wait(watch, &event, 1, 10000) == 1);
	part.iov_base = buffer.octets;
	part.iov_len = room;
	memset(&many, 0, sizeof many);
	many.msg_hdr.msg_iov = &part;
	many.msg_hdr.msg_iovlen = 1;
	FAILS(read(fd[0], buffer.octets, room), ENETDOWN);
	FAILS(recv(fd[1], buffer.octets, room, 0), ENETDOWN);
	FAILS(readv(fd[2], &part, 1), ENETDOWN);
	FAILS(recvmsg(fd[3], &many.msg_hdr, 0), ENETDOWN);
	FAILS(recvmmsg(fd[4], &many, 1, 0, 0), ENETDOWN);
	FAILS(recvfrom(fd[5], buffer.octets, room, 0, 0, 0), ENETDOWN);
	/* Who looks before reading, as OpenIKED does, and who writes first. */
	FAILS(recv(fd[6], buffer.octets, room, MSG_PEEK), ENETDOWN);
	FAILS(write(fd[7], &base, sizeof base), ENETDOWN);
	FAILS(read(fd[7], buffer.octets, room), ENETDOWN);
	/* A read of nothing is none. */
	MUST(read(fd[8], buffer.octets, 0) == 0);
	FAILS(read(fd[8], buffer.octets, room), ENETDOWN);
	for (n = 0; n < 9; n++)
		is_silent(fd[n]);
	MUST(epoll_wait(watch, &event, 1, 50) == 0);
	/* Another descriptor of the same socket is told for itself. */
	FAILS(read(copy, buffer.octets, room), ENETDOWN);
	is_silent(copy);
	/* What it was told of itself stays. */
	MUST(!(fcntl(fd[0], F_GETFL) & O_NONBLOCK));
	MUST(fcntl(fd[1], F_GETFL) & O_NONBLOCK);
	MUST(fcntl(fd[0], F_GETFD) == 0 && fcntl(fd[2], F_GETFD) == FD_CLOEXEC);
	FAILS(read(fd[1], buffer.octets, room), EAGAIN);
	start = now();
	FAILS(read(fd[0], buffer.octets, room), EAGAIN);
	MUST(now() - start >= 0.09);
	FAILS(socket(PF_KEY, SOCK_RAW, PF_KEY_V2), EAFNOSUPPORT);
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{ "kinds", kinds },
	{ "permission", permission },
	{ "nobody_there", nobody_there },
	{ "close_on_exec", close_on_exec },
	{ "nonblocking", nonblocking },
	{ "no_addresses", no_addresses },
	{ "options", options },
	{ "time_limits", time_limits },
	{ "loopback", loopback },
	{ "writing", writing },
	{ "reading", reading },
	{ "waiting", waiting },
	{ "copies", copies },
	{ "numbers", numbers },
	{ "forks", forks },
	{ "vforks", vforks },
	{ "passing", passing },
	{ "two_threads", two_threads },
	{ "two_processes", two_processes },
	{ "unread", unread },
	{ "signals", signals },
	{ "quiet_errno", quiet_errno },
	{ "nonsense", nonsense },
	{ "taken_away", taken_away },
	{ "spawned", spawned },
	{ "others_read", others_read },
	{ "forks_beside_threads", forks_beside_threads },
	{ "in_handlers", in_handlers },
	{ "impostors", impostors },
	{ "hostile_records", hostile_records },
	{ "policies", policies },
	/* The last: nothing works after it. */
	{ "service_gone", service_gone },
};

int main(int argc, char **argv)
{
	size_t n;
	alarm(60);
	if (argc > 2) {
		after_exec(argv);
		return 0;
	}
	for (n = 0; n < sizeof cases / sizeof *cases; n++) {
		if (argc == 1)
			puts(cases[n].name);
		else if (strcmp(argv[1], cases[n].name) == 0) {
			cases[n].run();
			return 0;
		}
	}
	return argc == 1 ? 0 : 2;
}
