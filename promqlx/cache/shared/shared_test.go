package shared

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// TestStore_KeepsValues: what is set is there, whatever its size, and only that.
func TestStore_KeepsValues(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f := newFake()
		address := listen(t, func(c net.Conn) { k.serve(f, c) })
		s, _ := k.open(t, patient(address))
		var keys []string
		var want [][]byte
		for _, size := range []int{0, 1, 1000, pieceSize - sealSize - 1, pieceSize - sealSize, pieceSize - sealSize + 1, 2*pieceSize - sealSize, 3_456_789} {
			keys, want = append(keys, fmt.Sprintf("a key of %d bytes\n", size)), append(want, randomBytes(size))
			s.Set(keys[len(keys)-1], want[len(want)-1], time.Hour)
		}
		s.written(t)
		require.Equal(t, len(keys), counted(s, "set", "stored"))
		keys, want = append(keys, "none", keys[2], keys[len(keys)-1]), append(want, nil, want[2], want[len(want)-1])
		require.Equal(t, want, s.Get(t.Context(), keys))
		require.Equal(t, len(keys)-1, counted(s, "get", "hit"))
		require.Equal(t, 1, counted(s, "get", "miss"))
		require.Empty(t, s.Get(t.Context(), nil))

		again, _ := k.open(t, patient(address))
		require.Equal(t, want[2], again.get(keys[2]), "another process finds it")
	})
}

// TestStore_TTL: values are kept no longer than they may be, and never for ever.
func TestStore_TTL(t *testing.T) {
	for name, want := range map[string][]string{"memcached": {"1", "2592000"}, "redis": {"1999", "3456000000", "1"}} {
		eachKind(t, func(t *testing.T, k kind) {
			if k.name != name {
				return
			}
			f := newFake()
			s, _ := k.open(t, patient(listen(t, func(c net.Conn) { k.serve(f, c) })))
			s.Set("a", nil, 1999*time.Millisecond)
			s.Set("b", nil, 40*24*time.Hour)
			s.Set("c", nil, time.Millisecond)
			s.Set("d", nil, 0)
			s.Set("e", nil, -1)
			s.written(t)
			var got []string
			for _, key := range []string{"a", "b", "c", "d", "e"} {
				if ttl := f.ttls[s.sealer.name(key)]; ttl != "" {
					got = append(got, ttl)
				}
			}
			require.Equal(t, want, got)
		})
	}
}

// TestStore_LyingValues: a value that was changed, or is that of another key, or was written
// without the secret, is not used.
func TestStore_LyingValues(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f := newFake()
		o := patient(listen(t, func(c net.Conn) { k.serve(f, c) }))
		o.Secret = []byte("hush")
		s, _ := k.open(t, o)
		a, b := s.sealer.name("a"), s.sealer.name("b")
		good := func() {
			s.Set("a", []byte("value"), time.Hour)
			s.Set("b", []byte("other"), time.Hour)
			s.written(t)
		}
		good()
		require.Equal(t, []byte("value"), s.get("a"))
		f.change(func(v map[string]string) { v[a] = v[a][:len(v[a])-1] + "E" })
		require.Nil(t, s.get("a"), "changed")
		require.Equal(t, 1, counted(s, "get", "broken"))
		good()
		f.change(func(v map[string]string) { v[a], v[b] = v[b], v[a] })
		require.Nil(t, s.get("a"), "that of another key")
		good()
		for n := range 45 {
			f.change(func(v map[string]string) { v[a] = v[a][:max(0, len(v[a])-1)] })
			require.Nil(t, s.get("a"), "cut %d", n)
		}
		o.Secret = nil
		forger, _ := k.open(t, o)
		forged := string(forger.sealer.seal("a", []byte("forged")))
		if k.name == "memcached" {
			forged = string(inline) + forged
		}
		f.change(func(v map[string]string) { v[a] = forged })
		require.Nil(t, s.get("a"), "without the secret")
		require.Nil(t, forger.get("a"))
	})
}

// TestMemcached_PiecesAreOfOneValue: a value whose pieces are not all there, or not its own, is not used.
func TestMemcached_PiecesAreOfOneValue(t *testing.T) {
	f := newFake()
	s, _ := kinds()[0].open(t, patient(listen(t, f.memcached)))
	name := s.sealer.name("a")
	first, second := bytes.Repeat([]byte("1"), 2_500_000), bytes.Repeat([]byte("2"), 2_500_000)
	s.Set("a", first, time.Hour)
	s.written(t)
	before := f.copy()
	require.Len(t, before, 4)
	s.Set("a", second, time.Hour)
	s.written(t)
	require.Equal(t, second, s.get("a"))
	require.Len(t, f.copy(), 7, "pieces of the first are there still")

	f.change(func(v map[string]string) { v[name] = before[name] })
	require.Equal(t, first, s.get("a"), "as if the second had been written between the reads of head and pieces")

	for piece := range before {
		if piece != name {
			f.change(func(v map[string]string) { delete(v, piece) })
			require.Nil(t, s.get("a"), "a piece is missing")
			f.change(func(v map[string]string) { v[piece] = before[piece][1:] })
			require.Nil(t, s.get("a"), "a piece is short")
			f.change(func(v map[string]string) { v[piece] = before[piece] })
		}
	}
	require.Zero(t, counted(s, "get", "broken"))
	f.change(func(v map[string]string) {
		for piece := range v {
			if piece != name {
				v[piece] = strings.Repeat("2", len(v[piece]))
			}
		}
	})
	require.Nil(t, s.get("a"), "pieces of another")
	require.Equal(t, 1, counted(s, "get", "broken"))
}

// TestStore_BadServers: whatever a server does, reading ends in time, finds nothing, and takes
// little memory; and the server is left alone soon.
func TestStore_BadServers(t *testing.T) {
	name := sealer{}.name("a")
	says := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			b := make([]byte, 1<<10)
			if _, err := c.Read(b); err != nil {
				return
			}
			fmt.Fprint(c, text)
			_, _ = c.Read(b) // until it is closed
		}
	}
	endless := func(head, text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1<<10))
			fmt.Fprint(c, head)
			for {
				if _, err := fmt.Fprint(c, text); err != nil {
					return
				}
			}
		}
	}
	head := func(length int) string {
		h := pieces{length, newID()}.head()
		return fmt.Sprintf("VALUE %s 0 %d\r\n%s\r\nEND\r\n", name, len(h), h)
	}
	servers := map[string]func(net.Conn){
		"hangs":                  func(c net.Conn) { _, _ = c.Read(make([]byte, 1<<20)); _, _ = c.Read(make([]byte, 1)) },
		"closes":                 func(net.Conn) {},
		"closes in an answer":    func(c net.Conn) { _, _ = c.Read(make([]byte, 1<<10)); fmt.Fprint(c, "VALUE ") },
		"garbage":                says("\x00\xff\x13garbage\r\n\r\n"),
		"an HTTP server":         says("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"a long line":            endless("", "x"),
		"endless":                endless("", "VALUE x 0 1\r\nx\r\n"),
		"endless array":          endless("*1\r\n", "$1\r\nx\r\n"),
		"endless items":          endless("", "VALUE "+name+" 0 1\r\nx\r\n"),
		"huge":                   says("VALUE " + name + " 0 9223372036854775807\r\n"),
		"huge string":            says("*1\r\n$9223372036854775800\r\n"),
		"huge array":             says("*9223372036854775800\r\n"),
		"large, nothing comes":   says("VALUE " + name + " 0 67108864\r\n"),
		"large string":           says("*1\r\n$67108864\r\n"),
		"negative":               says("VALUE " + name + " 0 -5\r\n"),
		"negative string":        says("*1\r\n$-5\r\n"),
		"no number":              says("*x\r\n"),
		"no line end":            says("*1\r\n$1\r\nxyz"),
		"no line end of an item": says("VALUE " + name + " 0 1\r\nxyzEND\r\n"),
		"an item of nobody":      says("VALUE x 0 1\r\nx\r\nEND\r\n"),
		"more than was asked":    says("END\r\nEND\r\n"),
		"more values":            says("*1\r\n$-1\r\n$-1\r\n"),
		"an error":               says("SERVER_ERROR out of memory\r\n"),
		"an error of Redis":      says("-MOVED 1 127.0.0.1:1\r\n"),
		"a huge head":            says(head(1 << 60)),
		"a negative head":        says(head(-1)),
		"a head without pieces":  says(head(0)),
		"empty":                  says("VALUE " + name + " 0 0\r\n\r\nEND\r\n"),
	}
	// Proper answers of memcached, with values that are none.
	proper := map[string]bool{"a huge head": true, "a negative head": true, "a head without pieces": true, "empty": true}
	eachKind(t, func(t *testing.T, k kind) {
		for what, handle := range servers {
			t.Run(what, func(t *testing.T) {
				o := patient(listen(t, handle))
				o.Timeout, o.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond
				s, _ := k.open(t, o)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				began := time.Now()
				for range 5 {
					require.Nil(t, s.get("a"))
					s.Set("a", []byte("value"), time.Hour)
				}
				require.Less(t, time.Since(began), 5*time.Second)
				runtime.ReadMemStats(&after)
				require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8<<20))
				if k.name == "redis" || !proper[what] {
					require.GreaterOrEqual(t, counted(s, "get", "error")+counted(s, "get", "refused"), 2)
				}
				s.Close()
			})
		}
	})
}

// TestStore_LargeAnswers: values come as long as the answer is not too large, and no more.
func TestStore_LargeAnswers(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f := newFake()
		s, _ := k.open(t, patient(listen(t, func(c net.Conn) { k.serve(f, c) })))
		large := randomBytes(30 << 20)
		for _, key := range []string{"a", "b", "c"} {
			s.Set(key, large, time.Hour)
			s.written(t)
		}
		for range 2 * tripInARow {
			got := s.Get(t.Context(), []string{"a", "b", "c"})
			require.True(t, bytes.Equal(large, got[0]) && bytes.Equal(large, got[1]))
			require.Nil(t, got[2])
		}
		require.Zero(t, counted(s, "get", "refused"), "it is no fault of the server")
		if k.name == "memcached" {
			require.Zero(t, counted(s, "get", "error"), "what is too large is not asked for")
		}
		s.Set("d", make([]byte, maxValue-sealSize+1), time.Hour)
		require.Equal(t, 1, counted(s, "set", "dropped"))
	})
}

// pipes dials a fake server through pipes, which synctest can follow.
func pipes(handle func(net.Conn)) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer func() { _ = theirs.Close() }()
			handle(theirs)
		}()
		return ours, nil
	}
}

// TestStore_Breaker: a server that hangs costs three timeouts, then nothing, and is used again soon
// after it has recovered.
func TestStore_Breaker(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			var hangs atomic.Bool
			s, reg := k.open(t, Options{Addresses: []string{"a:1"}, dial: pipes(func(c net.Conn) {
				if hangs.Load() {
					_, _ = c.Read(make([]byte, 1))
					<-t.Context().Done()
					return
				}
				k.serve(f, c)
			})})
			state := func(closed, halfOpen, open int) {
				t.Helper()
				want := fmt.Sprintf(`
					# HELP oneprom_cache_store_servers Servers of the shared cache by the state of their circuit breakers: closed (they are asked), half-open, open (they have failed, and are left alone).
					# TYPE oneprom_cache_store_servers gauge
					oneprom_cache_store_servers{state="closed"} %d
					oneprom_cache_store_servers{state="half-open"} %d
					oneprom_cache_store_servers{state="open"} %d
				`, closed, halfOpen, open)
				require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(want), "oneprom_cache_store_servers"))
			}
			timed := func() time.Duration {
				began := time.Now()
				s.get("a")
				return time.Since(began)
			}
			s.Set("a", []byte("x"), time.Hour)
			synctest.Wait()
			require.Equal(t, []byte("x"), s.get("a"))
			s.servers.Load().servers[0].pool.discard()

			hangs.Store(true)
			state(1, 0, 0)
			for range 3 {
				require.Equal(t, defaultTimeout, timed())
			}
			state(0, 0, 1)
			for range 100 {
				require.Zero(t, timed())
			}
			require.Equal(t, 3, counted(s, "get", "error"))
			require.Equal(t, 100, counted(s, "get", "refused"))
			s.Set("b", nil, time.Hour)
			synctest.Wait()
			require.Equal(t, 1, counted(s, "set", "refused"))

			time.Sleep(rest + 1)
			require.Equal(t, defaultTimeout, timed(), "it is tried again")
			require.Zero(t, timed())
			state(0, 0, 1)

			hangs.Store(false)
			time.Sleep(rest + 1)
			require.Equal(t, []byte("x"), s.get("a"))
			state(1, 0, 0)
			s.Close()
			state(0, 0, 0)
		})
	})
}

// TestStore_BreakerOfHalves: a server that fails every other time is left alone, too.
func TestStore_BreakerOfHalves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var n atomic.Int64
		s, _ := kinds()[1].open(t, Options{Addresses: []string{"a:1"}, dial: pipes(func(c net.Conn) {
			if n.Add(1)%2 == 0 {
				return
			}
			f.redis(c)
		})})
		for range 2 * tripVolume {
			s.get("a")
			s.servers.Load().servers[0].pool.discard()
		}
		require.Equal(t, tripVolume/2, counted(s, "get", "error"))
		require.Equal(t, tripVolume, counted(s, "get", "refused"))
	})
}

// TestStore_Cancellation: a caller who gives up ends the wait, and says nothing of the server.
func TestStore_Cancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := kinds()[0].open(t, Options{Addresses: []string{"a:1"}, dial: pipes(func(net.Conn) { <-t.Context().Done() })})
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			began := time.Now()
			s.Get(ctx, []string{"a"})
			require.Equal(t, time.Millisecond, time.Since(began))
			cancel()
		}
		require.Equal(t, 20, counted(s, "get", "canceled"))
		require.Zero(t, counted(s, "get", "refused"))
	})
}

// TestStore_OneOfMany: the failure of one server costs its own values only.
func TestStore_OneOfMany(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		good := []*fake{newFake(), newFake()}
		o := patient(listen(t, func(c net.Conn) { k.serve(good[0], c) }), listen(t, func(c net.Conn) { k.serve(good[1], c) }), listen(t, func(net.Conn) {}))
		s, _ := k.open(t, o)
		keys := make([]string, 300)
		for i := range keys {
			keys[i] = fmt.Sprint("key ", i)
			s.Set(keys[i], []byte(keys[i]), time.Hour)
		}
		s.written(t)
		found := 0
		for range 5 {
			found = 0
			for i, value := range s.Get(t.Context(), keys) {
				if value != nil {
					require.Equal(t, keys[i], string(value))
					found++
				}
			}
			require.Equal(t, len(good[0].values)+len(good[1].values), found)
		}
		require.InDelta(t, 200, found, 50)
	})
}

// TestStore_SetDoesNotWait: values for a server that hangs wait in a queue that is bounded, and are
// dropped when it is full.
func TestStore_SetDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := kinds()[0].open(t, Options{Addresses: []string{"a:1"}, WriteTimeout: time.Hour, dial: pipes(func(net.Conn) { <-t.Context().Done() })})
		began := time.Now()
		for range 200 {
			s.Set("a", make([]byte, 1<<20), time.Hour)
			synctest.Wait()
		}
		require.Equal(t, 200-63, counted(s, "set", "dropped"))
		require.LessOrEqual(t, testutil.ToFloat64(s.opts.Metrics.queued), float64(maxQueuedBytes))
		require.Zero(t, time.Since(began))
		s.Close()
		require.Zero(t, testutil.ToFloat64(s.opts.Metrics.queued))

		s, _ = kinds()[0].open(t, Options{Addresses: []string{"a:1"}, WriteTimeout: time.Hour, dial: pipes(func(net.Conn) { <-t.Context().Done() })})
		s.Set("first", nil, time.Hour)
		synctest.Wait() // it is being written
		for range maxQueued + 10 {
			s.Set("a", nil, time.Hour)
		}
		require.Equal(t, 10, counted(s, "set", "dropped"))
		require.Zero(t, time.Since(began))
	})
}

// TestStore_Refused: what a server refuses is counted, and is no failure of it.
func TestStore_Refused(t *testing.T) {
	f := newFake()
	s, _ := kinds()[1].open(t, patient(listen(t, f.redis)))
	for range 10 {
		s.Set("a", []byte("too much"), time.Hour)
	}
	s.Set("b", []byte("x"), time.Hour)
	s.written(t)
	require.Equal(t, 10, counted(s, "set", "error"))
	require.Equal(t, []byte("x"), s.get("b"))
}

// TestStore_HungUp: connections that a server has closed are replaced, and nothing fails.
func TestStore_HungUp(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f := newFake()
		accepted := make(chan net.Conn, 100)
		s, _ := k.open(t, patient(listen(t, func(c net.Conn) {
			accepted <- c
			k.serve(f, c)
		})))
		s.Set("a", []byte("x"), time.Hour)
		s.written(t)
		for range 10 {
			require.Equal(t, []byte("x"), s.get("a"))
			for len(accepted) > 0 {
				_ = (<-accepted).Close()
			}
		}
		require.Zero(t, counted(s, "get", "error"))
	})
}

// TestStore_Connections: connections are used again, those that nobody uses are few, and not old.
func TestStore_Connections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, dialled := newFake(), 0
		dial := pipes(f.redis)
		s, _ := kinds()[1].open(t, Options{Addresses: []string{"a:1"}, MaxIdle: 1, dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled++
			return dial(ctx, network, address)
		}})
		for range 10 {
			s.get("a")
		}
		require.Equal(t, 1, dialled)
		time.Sleep(maxIdleTime + 1)
		s.get("a")
		require.Equal(t, 2, dialled)
		server := s.servers.Load().servers[0]
		one, two := server.pool.take(), &conn{}
		two.raw, _ = net.Pipe()
		server.pool.put(two)
		server.pool.put(one)
		require.Len(t, server.pool.idle, 1)
	})
}

// TestRedis_Login: each new connection logs in, with the password of that moment.
func TestRedis_Login(t *testing.T) {
	f := newFake()
	o, password := patient(listen(t, f.redis)), "right"
	s, err := NewRedis(o, Login{Username: "u", Password: func() (string, error) { return password, nil }, DB: 3})
	require.NoError(t, err)
	defer s.Close()
	s.Set("a", []byte("x"), time.Hour)
	s.written(t)
	require.Equal(t, []byte("x"), s.get("a"))
	require.Equal(t, []string{"AUTH u right", "SELECT 3"}, f.logins)
	password = "wrong"
	require.Equal(t, []byte("x"), s.get("a"), "the connection is there")
	s.servers.Load().servers[0].pool.discard()
	require.Nil(t, s.get("a"))
	require.ErrorContains(t, *s.servers.Load().servers[0].lastErr.Load(), `logging in: the server says: "WRONGPASS`)

	plain, err := NewRedis(o, Login{Password: func() (string, error) { return "p", nil }})
	require.NoError(t, err)
	defer plain.Close()
	plain.get("a")
	require.Equal(t, "AUTH p", f.logins[len(f.logins)-1])

	_, err = NewRedis(o, Login{Password: func() (string, error) { return "", errors.New("no such file") }})
	require.EqualError(t, err, "no such file")
}

// panicking is a protocol with a bug.
type panicking struct{ memcached }

func (panicking) get(*conn, []string) ([][]byte, error) { panic("bug") }
func (panicking) set(*conn, []item) (int, error)        { panic("bug") }

// TestStore_Panics: a panic costs the values, and nothing else.
func TestStore_Panics(t *testing.T) {
	s, err := newStore(patient(listen(t, newFake().memcached)), panicking{})
	require.NoError(t, err)
	defer s.Close()
	for range 5 {
		require.Nil(t, s.get("a"))
		s.Set("a", nil, time.Hour)
	}
	s.written(t)
	require.Equal(t, 5, counted(s, "get", "error")+counted(s, "get", "refused"))
}

// TestStore_TLS: certificates are checked for the host of the address, or the name that is configured.
func TestStore_TLS(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate, which is that of example.com and 127.0.0.1
	defer web.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	f := newFake()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: web.TLS.Certificates})
	require.NoError(t, err)
	serveListener(t, l, f.memcached)
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	works := func(address string, cfg *tls.Config) bool {
		o := patient(address)
		o.TLS, o.resolve = cfg, &resolverOf{hosts: map[string][]string{"example.com": {"127.0.0.1"}, "other.com": {"127.0.0.1"}}}
		s, _ := kinds()[0].open(t, o)
		require.Eventually(t, func() bool { return len(s.servers.Load().servers) > 0 }, 10*time.Second, time.Millisecond)
		s.Set("a", []byte("x"), time.Hour)
		s.written(t)
		return s.get("a") != nil
	}
	require.True(t, works("127.0.0.1:"+port, &tls.Config{RootCAs: roots}))
	require.True(t, works("dns+example.com:"+port, &tls.Config{RootCAs: roots}))
	require.True(t, works("dns+other.com:"+port, &tls.Config{RootCAs: roots, ServerName: "example.com"}))
	require.False(t, works("dns+other.com:"+port, &tls.Config{RootCAs: roots}))
	require.False(t, works("127.0.0.1:"+port, &tls.Config{}))
	require.False(t, works("127.0.0.1:"+port, nil))
}

// TestStore_Closed: a closed store has nothing and takes nothing.
func TestStore_Closed(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f := newFake()
		s, _ := k.open(t, patient(listen(t, func(c net.Conn) { k.serve(f, c) })))
		s.Set("a", []byte("x"), time.Hour)
		s.written(t)
		s.Close()
		s.Set("b", []byte("x"), time.Hour)
		require.Nil(t, s.get("a"))
		require.Equal(t, 1, counted(s, "set", "dropped"))
		require.Len(t, f.values, 1)
	})
}

func TestNew_Errors(t *testing.T) {
	f := func(want string, addresses ...string) {
		t.Helper()
		_, err := NewMemcached(Options{Addresses: addresses})
		require.EqualError(t, err, want)
	}
	f("there is no address of a server: name at least one")
	f(`"a" is no address: write host:port, dns+host:port or dnssrv+name`, "a")
	f(`"dns+:1" is no address: write host:port, dns+host:port or dnssrv+name`, "a:1", "dns+:1")
	f(`"dnssrv+" is no address: a name with SRV records must follow dnssrv+`, "dnssrv+")
}
