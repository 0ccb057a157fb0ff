/*
 * A small key manager written from the text of pf_key(7P): it reserves an SPI, completes the inbound SA, waits until a
 * packet needs an outbound one, adds it, looks at it, limits it, lists all and deletes it. What is agreed with the other
 * end comes as arguments; both ends run this program. C89 and C++98.
 *
 * page OWN PEER INNER-OWN INNER-PEER SPI-IN SPI-OUT, where INNER is an address of a /16.
 */
#include <sys/types.h>
#include <sys/socket.h>
#include <net/pfkeyv2.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int key;
static unsigned char request[1024], answer[8192];
static size_t length;
static uint32_t seq;

static void die(const char *what)
{
	struct sadb_msg *base = (struct sadb_msg *)answer;
	fprintf(stderr, "%s: errno %d, message type %d errno %d diagnostic %d\n", what, errno, base->sadb_msg_type,
	    base->sadb_msg_errno, base->sadb_x_msg_diagnostic);
	exit(1);
}

static void begin(int type, uint32_t number)
{
	struct sadb_msg *base = (struct sadb_msg *)request;
	memset(request, 0, sizeof request);
	base->sadb_msg_version = PF_KEY_V2;
	base->sadb_msg_type = (uint8_t)type;
	base->sadb_msg_satype = SADB_SATYPE_ESP;
	base->sadb_msg_seq = number;
	base->sadb_msg_pid = (uint32_t)getpid();
	length = sizeof *base;
}

static void *extend(size_t octets)
{
	void *at = request + length;
	((struct sadb_ext *)at)->sadb_ext_len = (uint16_t)((octets + 7) / 8);
	length += (octets + 7) / 8 * 8;
	return at;
}

static struct sadb_sa *put_sa(uint32_t spi)
{
	struct sadb_sa *sa = (struct sadb_sa *)extend(sizeof *sa);
	sa->sadb_sa_exttype = SADB_EXT_SA;
	sa->sadb_sa_spi = htonl(spi);
	sa->sadb_sa_replay = 32;
	sa->sadb_sa_state = SADB_SASTATE_MATURE;
	sa->sadb_sa_auth = SADB_AALG_SHA256HMAC;
	sa->sadb_sa_encrypt = SADB_EALG_AES;
	return sa;
}

static void put_address(int type, const char *text, int proto, int prefix)
{
	struct sadb_address *address = (struct sadb_address *)extend(sizeof *address + sizeof(struct sockaddr_in));
	struct sockaddr_in *at = (struct sockaddr_in *)(address + 1);
	address->sadb_address_exttype = (uint16_t)type;
	address->sadb_address_proto = (uint8_t)proto;
	address->sadb_address_prefixlen = (uint8_t)prefix;
	at->sin_family = AF_INET;
	at->sin_addr.s_addr = inet_addr(text);
}

/* A Tunnel Mode SA has IPPROTO_ENCAP in its outer-headers and filled-in Inner-address extensions. */
static void put_tunnel(const char *src, const char *dst, const char *inner_src, const char *inner_dst)
{
	put_address(SADB_EXT_ADDRESS_SRC, src, IPPROTO_ENCAP, 0);
	put_address(SADB_EXT_ADDRESS_DST, dst, IPPROTO_ENCAP, 0);
	put_address(SADB_X_EXT_ADDRESS_INNER_SRC, inner_src, 0, 16);
	put_address(SADB_X_EXT_ADDRESS_INNER_DST, inner_dst, 0, 16);
}

static void put_key(int type, int octets, int seed)
{
	struct sadb_key *at = (struct sadb_key *)extend(sizeof *at + (size_t)octets);
	int n;
	at->sadb_key_exttype = (uint16_t)type;
	at->sadb_key_bits = (uint16_t)(octets * 8);
	for (n = 0; n < octets; n++)
		((unsigned char *)(at + 1))[n] = (unsigned char)(seed * 7 + n);
}

static void put_keys(uint32_t spi)
{
	put_key(SADB_EXT_KEY_AUTH, 32, (int)(spi & 0xff));
	put_key(SADB_EXT_KEY_ENCRYPT, 16, (int)(spi & 0xff) + 100);
}

static void put_lifetime(int type, uint64_t addtime)
{
	struct sadb_lifetime *at = (struct sadb_lifetime *)extend(sizeof *at);
	at->sadb_lifetime_exttype = (uint16_t)type;
	at->sadb_lifetime_addtime = addtime;
}

static struct sadb_msg *hear(void)
{
	ssize_t got = read(key, answer, sizeof answer);
	struct sadb_msg *base = (struct sadb_msg *)answer;
	if (got < (ssize_t)sizeof *base || base->sadb_msg_len * 8 != got)
		die("read");
	return base;
}

static void tell(void)
{
	((struct sadb_msg *)request)->sadb_msg_len = (uint16_t)(length / 8);
	if (write(key, request, length) != (ssize_t)length)
		die("write");
}

/* Sends the request and waits for its answer, whatever else is said meanwhile. */
static struct sadb_msg *ask(void)
{
	struct sadb_msg *asked = (struct sadb_msg *)request, *base;
	tell();
	do
		base = hear();
	while (base->sadb_msg_type != asked->sadb_msg_type || base->sadb_msg_seq != asked->sadb_msg_seq ||
	    base->sadb_msg_pid != asked->sadb_msg_pid);
	return base;
}

static void must(const char *what)
{
	if (ask()->sadb_msg_errno != 0)
		die(what);
}

static struct sadb_ext *find(int type)
{
	struct sadb_msg *base = (struct sadb_msg *)answer;
	size_t at = sizeof *base;
	while (at < base->sadb_msg_len * (size_t)8) {
		struct sadb_ext *ext = (struct sadb_ext *)(answer + at);
		if (ext->sadb_ext_type == type)
			return ext;
		at += ext->sadb_ext_len * (size_t)8;
	}
	return 0;
}

static struct sadb_ext *must_find(int type)
{
	struct sadb_ext *ext = find(type);
	if (ext == 0)
		die("an extension is missing");
	return ext;
}

static void has_algorithm(int type, int id)
{
	struct sadb_supported *supported = (struct sadb_supported *)must_find(type);
	struct sadb_alg *alg = (struct sadb_alg *)(supported + 1);
	struct sadb_alg *end = (struct sadb_alg *)((unsigned char *)supported + supported->sadb_supported_len * 8);
	while (alg < end && alg->sadb_alg_id != id)
		alg++;
	if (alg == end)
		die("an algorithm is missing");
}

/* Waits for a packet that needs an SA, and says which. */
static uint32_t acquired(void)
{
	struct sadb_address *dst;
	while (hear()->sadb_msg_type != SADB_ACQUIRE)
		continue;
	dst = (struct sadb_address *)must_find(SADB_EXT_ADDRESS_DST);
	must_find(SADB_EXT_PROPOSAL);
	printf("acquire %s\n", inet_ntoa(((struct sockaddr_in *)(dst + 1))->sin_addr));
	return ((struct sadb_msg *)answer)->sadb_msg_seq;
}

static void wait_for_line(void)
{
	char line[80];
	if (fgets(line, sizeof line, stdin) == 0)
		die("nobody says how it goes on");
}

int main(int argc, char **argv)
{
	const char *own, *peer, *inner_own, *inner_peer;
	uint32_t in, out, acquire;
	struct sadb_spirange *range;
	struct sadb_sa *sa;
	int count = 0;
	if (argc != 7)
		return 2;
	own = argv[1];
	peer = argv[2];
	inner_own = argv[3];
	inner_peer = argv[4];
	in = (uint32_t)strtoul(argv[5], 0, 0);
	out = (uint32_t)strtoul(argv[6], 0, 0);
	setvbuf(stdout, 0, _IOLBF, BUFSIZ);
	key = socket(PF_KEY, SOCK_RAW, PF_KEY_V2);
	if (key < 0)
		die("socket");

	begin(SADB_REGISTER, ++seq);
	must("REGISTER");
	has_algorithm(SADB_EXT_SUPPORTED_AUTH, SADB_AALG_SHA256HMAC);
	has_algorithm(SADB_EXT_SUPPORTED_ENCRYPT, SADB_EALG_AES);

	begin(SADB_GETSPI, ++seq);
	put_address(SADB_EXT_ADDRESS_SRC, peer, 0, 0);
	put_address(SADB_EXT_ADDRESS_DST, own, 0, 0);
	range = (struct sadb_spirange *)extend(sizeof *range);
	range->sadb_spirange_exttype = SADB_EXT_SPIRANGE;
	range->sadb_spirange_min = range->sadb_spirange_max = htonl(in);
	must("GETSPI");
	sa = (struct sadb_sa *)must_find(SADB_EXT_SA);
	if (sa->sadb_sa_spi != htonl(in) || sa->sadb_sa_state != SADB_SASTATE_LARVAL)
		die("not the SPI that was asked for");
	begin(SADB_UPDATE, ++seq);
	put_sa(in)->sadb_sa_flags = SADB_X_SAFLAGS_TUNNEL;
	put_tunnel(peer, own, inner_peer, inner_own);
	put_keys(in);
	must("UPDATE");
	puts("ready");

	acquire = acquired();
	begin(SADB_ADD, acquire);
	put_sa(out)->sadb_sa_flags = SADB_X_SAFLAGS_TUNNEL;
	put_tunnel(own, peer, inner_own, inner_peer);
	put_keys(out);
	must("ADD");
	puts("added");

	wait_for_line();
	begin(SADB_GET, ++seq);
	put_sa(out);
	put_address(SADB_EXT_ADDRESS_DST, peer, 0, 0);
	must("GET");
	sa = (struct sadb_sa *)must_find(SADB_EXT_SA);
	if (sa->sadb_sa_spi != htonl(out) || sa->sadb_sa_encrypt != SADB_EALG_AES ||
	    (sa->sadb_sa_flags & (SADB_X_SAFLAGS_OUTBOUND | SADB_X_SAFLAGS_TUNNEL)) !=
	    (SADB_X_SAFLAGS_OUTBOUND | SADB_X_SAFLAGS_TUNNEL))
		die("not the SA that was added");
	/* put_keys() put them side by side, as they come back one by one. */
	begin(0, 0);
	put_keys(out);
	if (memcmp(request + sizeof(struct sadb_msg), must_find(SADB_EXT_KEY_AUTH), 40) != 0 ||
	    memcmp(request + sizeof(struct sadb_msg) + 40, must_find(SADB_EXT_KEY_ENCRYPT), 24) != 0)
		die("not the keys that were added");
	if (((struct sadb_lifetime *)must_find(SADB_EXT_LIFETIME_CURRENT))->sadb_lifetime_bytes < 100)
		die("the SA has carried nothing");

	begin(SADB_UPDATE, ++seq);
	put_sa(out);
	put_address(SADB_EXT_ADDRESS_SRC, own, 0, 0);
	put_address(SADB_EXT_ADDRESS_DST, peer, 0, 0);
	put_lifetime(SADB_EXT_LIFETIME_HARD, 4000);
	put_lifetime(SADB_EXT_LIFETIME_SOFT, 3000);
	must("UPDATE of lifetimes");
	begin(SADB_GET, ++seq);
	put_sa(out);
	put_address(SADB_EXT_ADDRESS_DST, peer, 0, 0);
	must("second GET");
	if (((struct sadb_lifetime *)must_find(SADB_EXT_LIFETIME_HARD))->sadb_lifetime_addtime != 4000)
		die("not the lifetime that was set");

	/* One message for each SA; a base header with sadb_msg_seq 0 ends them. */
	begin(SADB_DUMP, ++seq);
	tell();
	while (hear()->sadb_msg_type != SADB_DUMP || ((struct sadb_msg *)answer)->sadb_msg_seq != 0) {
		if (((struct sadb_msg *)answer)->sadb_msg_type != SADB_DUMP)
			continue;
		sa = (struct sadb_sa *)must_find(SADB_EXT_SA);
		if (sa->sadb_sa_spi == htonl(in) || sa->sadb_sa_spi == htonl(out))
			count++;
	}
	if (count != 2)
		die("DUMP does not show both");

	begin(SADB_DELETE, ++seq);
	put_sa(out);
	put_address(SADB_EXT_ADDRESS_DST, peer, 0, 0);
	must("DELETE");
	begin(SADB_GET, ++seq);
	put_sa(out);
	put_address(SADB_EXT_ADDRESS_DST, peer, 0, 0);
	if (ask()->sadb_msg_errno != ESRCH)
		die("GET of what was deleted");
	puts("deleted");

	/* Key management fails this time. */
	acquire = acquired();
	begin(SADB_ACQUIRE, acquire);
	((struct sadb_msg *)request)->sadb_msg_errno = EHOSTUNREACH;
	tell();
	puts("done");
	return 0;
}
