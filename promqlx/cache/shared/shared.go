// Package shared keeps values in memcached or Redis, where several oneproms find them.
//
// A Store costs a query little, whatever becomes of its servers: reading ends within a timeout,
// writing happens in the background, and a server that fails is left alone for a while. What a
// server sends is bounded before memory is taken for it, and is used only if its seal is right.
//
// Both protocols are spoken here, and not by the usual clients. Those take as much memory as a
// server claims that its answer has, and some panic in goroutines where nobody can recover.
package shared

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneprom/oneprom/servergroup/lifetime"
)

// Options of a Store. Addresses are required.
type Options struct {
	// Addresses are host:port; dns+host:port, which stands for all addresses of that host; or
	// dnssrv+name, which stands for all that the SRV records of that name say. The latter two are
	// looked up again and again.
	Addresses []string
	// Timeout is how long reading may take, 0 is 100 ms. WriteTimeout is how long a round of writing
	// may take, 0 is 500 ms.
	Timeout, WriteTimeout time.Duration
	// MaxIdle is how many connections to a server are kept while nobody uses them; 0 is 16.
	MaxIdle int
	// TLS is nil for connections without it. Without a server name, certificates are checked for the
	// host of the address.
	TLS *tls.Config
	// Secret seals the values: those that were written without it are not used. Without a secret, the
	// seal is a checksum.
	Secret []byte
	// Metrics may be those of a store before. Nil counts for nobody.
	Metrics *Metrics
	Logger  *slog.Logger // nil discards

	// Of tests; nil are the dialer and the resolver of the system.
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	resolve resolver
}

const (
	defaultTimeout      = 100 * time.Millisecond
	defaultWriteTimeout = 500 * time.Millisecond
	defaultMaxIdle      = 16
)

// withDefaults fills in what is not said.
func (o Options) withDefaults() Options {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = defaultWriteTimeout
	}
	if o.MaxIdle == 0 {
		o.MaxIdle = defaultMaxIdle
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.dial == nil {
		o.dial = (&net.Dialer{}).DialContext
	}
	if o.resolve == nil {
		o.resolve = net.DefaultResolver
	}
	return o
}

// protocol is how a server is spoken to. The deadline of a connection is set before.
type protocol interface {
	// hello is what a new connection begins with.
	hello(*conn) error
	// get returns the values of names, nil where there is none. With an error, it returns what had
	// come before.
	get(c *conn, names []string) ([][]byte, error)
	// set writes items, and returns how many of them the server refused.
	set(c *conn, items []item) (refused int, err error)
}

// item is a value to be written.
type item struct {
	name  string
	value []byte
	ttl   time.Duration
}

// Store keeps values in servers, each in one of them. It is safe for concurrent use.
type Store struct {
	opts     Options
	protocol protocol
	sealer   sealer
	life     *lifetime.Lifetime
	servers  atomic.Pointer[ring]
	queue    queue
}

// NewMemcached returns a store over memcached, which must be closed.
func NewMemcached(o Options) (*Store, error) { return newStore(o, memcached{}) }

// NewRedis returns a store over Redis, or what speaks its protocol. It must be closed.
func NewRedis(o Options, l Login) (*Store, error) {
	if _, err := l.password(); err != nil {
		return nil, err
	}
	return newStore(o, redis{l})
}

func newStore(o Options, p protocol) (*Store, error) {
	if len(o.Addresses) == 0 {
		return nil, errors.New("there is no address of a server: name at least one")
	}
	s := &Store{opts: o.withDefaults(), protocol: p, sealer: sealer{o.Secret}, life: lifetime.New()}
	s.servers.Store(&ring{})
	s.queue.init(s.opts.Metrics)
	known, err := newDirectory(s.opts)
	if err != nil {
		return nil, err
	}
	s.use(known.nodes())
	if known.changes() {
		s.life.Run(func(ctx context.Context) { known.follow(ctx, s.use) })
	}
	s.life.Run(s.writeQueued)
	return s, nil
}

// use has these servers asked, and no others.
func (s *Store) use(nodes []node) {
	next, gone := s.servers.Load().with(nodes, func(n node) *server { return newServer(n, s.opts, s.protocol) })
	s.servers.Store(next)
	for _, server := range gone {
		server.close()
	}
}

// Get returns the values of keys, nil where there is none. It does not fail: servers that do not
// answer within the timeout have nothing.
func (s *Store) Get(ctx context.Context, keys []string) [][]byte {
	out := make([][]byte, len(keys))
	asked := map[*server][]int{}
	names := make([]string, len(keys))
	servers := s.servers.Load()
	for i, key := range keys {
		names[i] = s.sealer.name(key)
		if server := servers.of(names[i]); server != nil {
			asked[server] = append(asked[server], i)
		}
	}
	var all sync.WaitGroup
	for server, at := range asked {
		all.Go(func() {
			wanted := make([]string, len(at))
			for j, i := range at {
				wanted[j] = names[i]
			}
			values, err := server.get(ctx, wanted)
			for j, i := range at {
				out[i] = s.unsealed(keys[i], values[j], err)
			}
		})
	}
	all.Wait()
	return out
}

// unsealed returns a value that a server sent, nil if its seal is wrong, and counts what was found.
func (s *Store) unsealed(key string, sealed []byte, err error) (value []byte) {
	m := s.opts.Metrics
	if sealed == nil {
		m.count("get", resultOf(err, "miss"), 1)
		return nil
	}
	m.bytes.WithLabelValues("get").Add(float64(len(sealed)))
	value, ok := s.sealer.open(key, sealed)
	if !ok {
		m.count("get", "broken", 1)
		return nil
	}
	m.count("get", "hit", 1)
	return value
}

// Set keeps a value for up to ttl. It does not wait. What the queue has no room for is dropped.
func (s *Store) Set(key string, value []byte, ttl time.Duration) {
	if len(value) > maxValue-sealSize || !s.queue.put(queued{key, value, ttl}) {
		s.opts.Metrics.count("set", "dropped", 1)
	}
}

// Close ends the connections, and all that runs in the background. What waits to be written is
// dropped. The store has nothing from then on.
func (s *Store) Close() {
	s.life.End()
	s.use(nil)
	s.queue.close()
}

// splitAddress returns what an address stands for.
func splitAddress(address string) (scheme, host, port string, err error) {
	scheme, rest := cutScheme(address)
	if scheme == "dnssrv" {
		if rest == "" {
			return "", "", "", fmt.Errorf("%q is no address: a name with SRV records must follow dnssrv+", address)
		}
		return scheme, rest, "", nil
	}
	host, port, err = net.SplitHostPort(rest)
	if err != nil || host == "" || port == "" {
		return "", "", "", fmt.Errorf("%q is no address: write host:port, dns+host:port or dnssrv+name", address)
	}
	return scheme, host, port, nil
}
