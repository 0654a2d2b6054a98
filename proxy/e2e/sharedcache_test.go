//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSharedCache_ServersThatFailOrLie asks queries under load while the servers of a shared cache hang, die, and lose or change what
// they were given. No query fails, and no answer is another one than without a cache. The servers are used again when they are well.
func TestSharedCache_ServersThatFailOrLie(t *testing.T) {
	for _, kind := range []cacheKind{memcachedKind, redisKind} {
		t.Run(kind.name, func(t *testing.T) {
			servers := []*cacheServer{startCacheServer(t, kind), startCacheServer(t, kind)}
			backend := oneBackend([]string{hostPort(t, reference(t))}, "replica_labels: [replica]")
			secret := filepath.Join(t.TempDir(), "secret")
			require.NoError(t, os.WriteFile(secret, []byte("hush"), 0o600))
			front := func() string { // memory has no room for any value
				return oneprom(t, backend+fmt.Sprintf("cache: {secret_file: '%s', %s: {addresses: ['%s', '%s']}}\n", secret, kind.name, servers[0].address, servers[1].address), "--cache.size=1")
			}
			c := &cacheClients{fronts: []string{front(), front()}, truth: map[string]string{}}
			plain := oneprom(t, backend, "--cache.size=0")
			for _, query := range cacheQueries() {
				c.queries = append(c.queries, query)
				body := textOf(t.Context(), plain+query)
				require.Contains(t, body, `"success"`)
				c.truth[query] = body
			}
			require.Greater(t, len(c.truth), 30)
			each := func(do func(s *cacheServer)) func() {
				return func() {
					for _, s := range servers {
						do(s)
					}
				}
			}
			stop := c.ask(t)
			for _, phase := range []struct {
				name  string
				begin func()
				open  int    // how many servers each oneprom leaves alone
				found string // a result of gets that is seen more often, ten times at least
			}{
				{"all well", func() {}, 0, "hit"},
				{"one is killed", servers[0].kill, 1, "refused"},
				{"so is the other", servers[1].kill, 2, "refused"},
				{"they are started again, and are empty", each(func(s *cacheServer) { s.start(t) }), 0, "hit"},
				{"both hang", each(func(s *cacheServer) { s.signal(t, syscall.SIGSTOP) }), 2, "refused"},
				{"they are back", each(func(s *cacheServer) { s.signal(t, syscall.SIGCONT) }), 0, "hit"},
				{"all values are garbage", each(func(s *cacheServer) { s.change(t, garbage) }), 0, "broken"},
				{"they are written anew", func() {}, 0, "hit"},
				{"all values are those of other keys", each(func(s *cacheServer) { s.change(t, swap) }), 0, "broken"},
				{"they are written anew", func() {}, 0, "hit"},
			} {
				before := make([]float64, len(c.fronts))
				for i, front := range c.fronts {
					before[i] = cacheMetric(t, front, `oneprom_cache_store_operations_total{operation="get",result="`+phase.found+`"}`)
				}
				phase.begin()
				for i, front := range c.fronts {
					require.Eventually(t, func() bool {
						return cacheMetric(t, front, `oneprom_cache_store_servers{state="open"}`) == float64(phase.open) &&
							cacheMetric(t, front, `oneprom_cache_store_servers{state="closed"}`) == float64(2-phase.open) &&
							cacheMetric(t, front, `oneprom_cache_store_operations_total{operation="get",result="`+phase.found+`"}`) >= before[i]+10
					}, time.Minute, 50*time.Millisecond, phase.name)
				}
				t.Logf("%-40s %d answers so far; the slowest since the last phase took %s", phase.name, c.answers.Load(), time.Duration(c.slowest.Swap(0)))
			}
			stop()
			require.Empty(t, c.bad)
		})
	}
}

// TestSharedCache_ServesAll: what one of several oneproms has evaluated, all answer from, also one that has just been started.
func TestSharedCache_ServesAll(t *testing.T) {
	for _, kind := range []cacheKind{memcachedKind, redisKind} {
		t.Run(kind.name, func(t *testing.T) {
			server := startCacheServer(t, kind)
			config := oneBackend([]string{hostPort(t, reference(t))}, "replica_labels: [replica]") + fmt.Sprintf("cache: {%s: {addresses: ['%s']}}\n", kind.name, server.address)
			start := func() string {
				base := oneprom(t, config)
				require.Contains(t, textOf(t.Context(), base+"/api/v1/query?query=up"), "success") // its server is known afterwards
				return base
			}
			refresh := func(base string) map[string]int {
				found := map[string]int{}
				for _, query := range cacheQueries() {
					resp, err := http.Get(base + query)
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					found[resp.Header.Get("X-Oneprom-Cache")]++
				}
				return found
			}
			first, second := start(), start()
			all := len(cacheQueries())
			require.Greater(t, refresh(first)["miss"], all*3/4) // the rest have steps in common
			require.Eventually(t, func() bool { return cacheMetric(t, first, "oneprom_cache_store_queued_bytes") == 0 }, time.Minute, 10*time.Millisecond)
			require.Equal(t, map[string]int{"hit": all}, refresh(second))
			require.Equal(t, map[string]int{"hit": all}, refresh(start()))
		})
	}
}

// cacheQueries are range queries over the history, of which answers are kept.
func cacheQueries() (all []string) {
	for _, query := range []string{"m", "sum by (job) (m)", "rate(reqs_total[5m])", "count(up)", `max_over_time(m{job="a"}[10m])`, "absent(nope)"} {
		for _, step := range []int{1, 7, 15, 60} {
			for _, start := range []int{0, 601} {
				all = append(all, "/api/v1/query_range?"+url.Values{"query": {query}, "start": {strconv.Itoa(start)}, "end": {"3000"}, "step": {strconv.Itoa(step)}}.Encode())
			}
		}
	}
	return all
}

// cacheClients ask oneproms again and again.
type cacheClients struct {
	fronts  []string
	queries []string
	truth   map[string]string // by query

	answers, slowest atomic.Int64

	mtx sync.Mutex // guards the field below
	bad []string
}

// ask begins to ask, until stop is called.
func (c *cacheClients) ask(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i, front := range c.fronts {
		running.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				query := c.queries[n%len(c.queries)]
				began := time.Now()
				body := textOf(ctx, front+query)
				if ctx.Err() != nil {
					return
				}
				c.answers.Add(1)
				c.slowest.Store(max(c.slowest.Load(), int64(time.Since(began))))
				if body != c.truth[query] {
					c.mtx.Lock()
					c.bad = append(c.bad, fmt.Sprintf("%s: %.1000s\ninstead of %.1000s", query, body, c.truth[query]))
					c.mtx.Unlock()
				}
			}
		})
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// textOf returns an answer, or why there is none.
func textOf(ctx context.Context, target string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err.Error()
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// cacheMetric returns a sample of a oneprom, 0 if there is none.
func cacheMetric(t *testing.T, base, series string) float64 {
	t.Helper()
	body := textOf(t.Context(), base+"/metrics")
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(body)
	if m == nil { // it has not been counted yet
		return 0
	}
	value, err := strconv.ParseFloat(m[1], 64)
	require.NoError(t, err)
	return value
}

// cacheKind is a kind of servers of a shared cache.
type cacheKind struct {
	name    string
	command func(port string) *exec.Cmd
	change  func(t *testing.T, c *cacheConn, values func(map[string][]byte))
}

var memcachedKind = cacheKind{
	"memcached",
	func(port string) *exec.Cmd {
		return exec.Command("memcached", "-l", "127.0.0.1", "-p", port, "-U", "0", "-u", "nobody")
	},
	func(t *testing.T, c *cacheConn, change func(map[string][]byte)) {
		values := map[string][]byte{}
		c.send(t, "lru_crawler metadump all\r\n")
		var names []string
		for line := c.line(t); line != "END"; line = c.line(t) {
			name, _, _ := strings.Cut(strings.TrimPrefix(line, "key="), " ")
			name, err := url.QueryUnescape(name)
			require.NoError(t, err)
			names = append(names, name)
		}
		for _, name := range names {
			c.send(t, "get "+name+"\r\n")
			if line := c.line(t); line != "END" {
				values[name] = c.value(t, line[strings.LastIndex(line, " ")+1:])
				require.Equal(t, "END", c.line(t))
			}
		}
		change(values)
		for name, value := range values {
			c.send(t, fmt.Sprintf("set %s 0 0 %d\r\n%s\r\n", name, len(value), value))
			require.Equal(t, "STORED", c.line(t))
		}
	},
}

var redisKind = cacheKind{
	"redis",
	func(port string) *exec.Cmd {
		return exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no")
	},
	func(t *testing.T, c *cacheConn, change func(map[string][]byte)) {
		values := map[string][]byte{}
		c.send(t, "KEYS *\r\n")
		n, err := strconv.Atoi(c.line(t)[1:])
		require.NoError(t, err)
		var names []string
		for range n {
			names = append(names, string(c.value(t, c.line(t)[1:])))
		}
		for _, name := range names {
			c.send(t, "GET "+name+"\r\n")
			values[name] = c.value(t, c.line(t)[1:])
		}
		change(values)
		for name, value := range values {
			c.send(t, fmt.Sprintf("*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(name), name, len(value), value))
			require.Equal(t, "+OK", c.line(t))
		}
	},
}

// garbage makes all values random.
func garbage(values map[string][]byte) {
	for name, value := range values {
		values[name] = make([]byte, len(value))
		_, _ = rand.Read(values[name])
	}
}

// swap gives each value to another key.
func swap(values map[string][]byte) {
	var names []string
	for name := range values {
		names = append(names, name)
	}
	for i := range len(names) - 1 {
		values[names[i]], values[names[i+1]] = values[names[i+1]], values[names[i]]
	}
}

// cacheServer is a real server of a shared cache.
type cacheServer struct {
	kind    cacheKind
	address string
	process *os.Process
	ended   chan struct{}
}

// startCacheServer starts a server on a free port. It is killed when the test ends.
func startCacheServer(t *testing.T, kind cacheKind) *cacheServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &cacheServer{kind: kind, address: l.Addr().String()}
	require.NoError(t, l.Close())
	s.start(t)
	t.Cleanup(s.kill)
	return s
}

// start starts the server, and waits until it listens.
func (s *cacheServer) start(t *testing.T) {
	t.Helper()
	_, port, err := net.SplitHostPort(s.address)
	require.NoError(t, err)
	cmd := s.kind.command(port)
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // whose end is what the kernel kills the process for
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	require.NoError(t, <-started)
	s.process, s.ended = cmd.Process, ended
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, time.Minute, 10*time.Millisecond)
}

func (s *cacheServer) kill() {
	_ = s.process.Kill()
	<-s.ended
}

func (s *cacheServer) signal(t *testing.T, sig syscall.Signal) {
	require.NoError(t, s.process.Signal(sig))
}

// change has f change all values that the server has.
func (s *cacheServer) change(t *testing.T, f func(map[string][]byte)) {
	t.Helper()
	c, err := net.Dial("tcp", s.address)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	s.kind.change(t, &cacheConn{c, bufio.NewReader(c)}, func(values map[string][]byte) {
		require.Greater(t, len(values), 10)
		f(values)
	})
}

// cacheConn is a connection of the test itself.
type cacheConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *cacheConn) send(t *testing.T, text string) {
	t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
}

func (c *cacheConn) line(t *testing.T) string {
	t.Helper()
	line, err := c.r.ReadString('\n')
	require.NoError(t, err)
	return strings.TrimRight(line, "\r\n")
}

// value reads a value of so many bytes.
func (c *cacheConn) value(t *testing.T, size string) []byte {
	t.Helper()
	n, err := strconv.Atoi(size)
	require.NoError(t, err)
	if n < 0 { // it has expired
		return nil
	}
	value := make([]byte, n+2)
	_, err = io.ReadFull(c.r, value)
	require.NoError(t, err)
	return bytes.TrimSuffix(value, []byte("\r\n"))
}
