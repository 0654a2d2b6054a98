package shared

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a server in this process: it serves connections, and tests look at what it keeps.
type fake struct {
	mtx    sync.Mutex
	values map[string]string
	ttls   map[string]string
	logins []string
}

func newFake() *fake { return &fake{values: map[string]string{}, ttls: map[string]string{}} }

// change has f change the values.
func (f *fake) change(change func(values map[string]string)) {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	change(f.values)
}

func (f *fake) get(name string) (value string, ok bool) {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	value, ok = f.values[name]
	return value, ok
}

func (f *fake) set(name, value, ttl string) {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	f.values[name], f.ttls[name] = value, ttl
}

func (f *fake) copy() map[string]string {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	return maps.Clone(f.values)
}

// memcached serves a connection as memcached does, with its limits.
func (f *fake) memcached(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		fields := strings.Fields(line)
		switch fields[0] {
		case "get":
			for _, name := range fields[1:] {
				if value, ok := f.get(name); ok {
					fmt.Fprintf(c, "VALUE %s 0 %d\r\n%s\r\n", name, len(value), value)
				}
			}
			fmt.Fprint(c, "END\r\n")
		case "set":
			size, _ := strconv.Atoi(fields[4])
			value := make([]byte, size+2)
			if _, err := io.ReadFull(r, value); err != nil {
				return
			}
			if size+len(fields[1])+100 > 1<<20 || len(fields[1]) > 250 {
				fmt.Fprint(c, "SERVER_ERROR object too large for cache\r\n")
				continue
			}
			f.set(fields[1], string(value[:size]), fields[3])
			fmt.Fprint(c, "STORED\r\n")
		default:
			fmt.Fprint(c, "ERROR\r\n")
		}
	}
}

// redis serves a connection as Redis does. It wants no login, and takes all but the password "wrong".
func (f *fake) redis(c net.Conn) {
	r := bufio.NewReader(c)
	number := func() (n int) {
		line, err := r.ReadString('\n')
		if err == nil {
			n, _ = strconv.Atoi(strings.TrimSpace(line[1:]))
		}
		return n
	}
	for {
		var args []string
		for range number() {
			arg := make([]byte, number()+2)
			if _, err := io.ReadFull(r, arg); err != nil {
				return
			}
			args = append(args, string(arg[:len(arg)-2]))
		}
		if len(args) == 0 {
			return
		}
		switch args[0] {
		case "MGET":
			fmt.Fprintf(c, "*%d\r\n", len(args)-1)
			for _, name := range args[1:] {
				if value, ok := f.get(name); ok {
					fmt.Fprintf(c, "$%d\r\n%s\r\n", len(value), value)
				} else {
					fmt.Fprint(c, "$-1\r\n")
				}
			}
		case "SET":
			if strings.HasSuffix(args[2], "too much") {
				fmt.Fprint(c, "-OOM command not allowed when used memory > 'maxmemory'\r\n")
				continue
			}
			f.set(args[1], args[2], args[4])
			fmt.Fprint(c, "+OK\r\n")
		default:
			f.mtx.Lock()
			f.logins = append(f.logins, strings.Join(args, " "))
			f.mtx.Unlock()
			if args[len(args)-1] == "wrong" {
				fmt.Fprint(c, "-WRONGPASS invalid username-password pair\r\n")
				continue
			}
			fmt.Fprint(c, "+OK\r\n")
		}
	}
}

// listen serves connections until the test ends, and returns the address.
func listen(t testing.TB, handle func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	serveListener(t, l, handle)
	return l.Addr().String()
}

func serveListener(t testing.TB, l net.Listener, handle func(net.Conn)) {
	var running sync.WaitGroup
	var mtx sync.Mutex
	var open []net.Conn
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mtx.Lock()
			open = append(open, c)
			mtx.Unlock()
			running.Go(func() {
				defer func() { _ = c.Close() }()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mtx.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mtx.Unlock()
		running.Wait()
	})
}

// kind is a kind of servers.
type kind struct {
	name  string
	new   func(o Options) (*Store, error)
	serve func(f *fake, c net.Conn)
}

func kinds() []kind {
	return []kind{
		{"memcached", NewMemcached, (*fake).memcached},
		{"redis", func(o Options) (*Store, error) { return NewRedis(o, Login{}) }, (*fake).redis},
	}
}

// eachKind runs a test for each kind of servers.
func eachKind(t *testing.T, f func(t *testing.T, k kind)) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) { f(t, k) })
	}
}

// open returns a store, which is closed when the test ends, and its metrics.
func (k kind) open(t testing.TB, o Options) (*Store, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	o.Metrics = NewMetrics(reg)
	s, err := k.new(o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s, reg
}

// patient are options of tests in which servers are to answer, on a slow machine, too.
func patient(addresses ...string) Options {
	return Options{Addresses: addresses, Timeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
}

// counted returns a counter of operations.
func counted(s *Store, operation, result string) int {
	return int(testutil.ToFloat64(s.opts.Metrics.operations.WithLabelValues(operation, result)))
}

// written waits until the store has written what it was given, or failed to.
func (s *Store) written(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool {
		s.queue.mtx.Lock()
		defer s.queue.mtx.Unlock()
		return s.queue.bytes == 0
	}, 10*time.Second, time.Millisecond)
}

// get returns one value.
func (s *Store) get(key string) []byte { return s.Get(context.Background(), []string{key})[0] }
