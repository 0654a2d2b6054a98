package proxy

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// cacheServer takes connections, and tells what the first line of each is.
func cacheServer(t *testing.T) (address string, first func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var running sync.WaitGroup
	var mtx sync.Mutex
	var lines []string
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			mtx.Lock()
			lines = append(lines, line)
			mtx.Unlock()
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return l.Addr().String(), func() []string {
		mtx.Lock()
		defer mtx.Unlock()
		return append([]string(nil), lines...)
	}
}

// TestCache_Reload: the servers of the shared cache are those of the configuration that is in use.
func TestCache_Reload(t *testing.T) {
	db := promqltest.LoadedStorage(t, "load 1m\n  m 1x100\n")
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	backend := httptest.NewServer(backendtest.NewHandler(backendtest.Options{Queryable: db, EarlyNames: true}))
	t.Cleanup(backend.Close)
	base := singleConfig(strings.TrimPrefix(backend.URL, "http://"), "")
	first, firstSeen := cacheServer(t)
	second, secondSeen := cacheServer(t)
	s, file := startedServer(t, base)
	asked := 0
	ask := func() {
		asked++ // another query each time, which memory does not know
		w := get(s.Handler(), fmt.Sprintf("/api/v1/query_range?query=m%%2B%d&start=0&end=6000&step=10", asked))
		require.Equal(t, http.StatusOK, w.Code, w.Body)
	}
	reload := func(section string) error {
		writeConfig(t, file, base+section)
		return s.Reload(context.Background())
	}
	ask()
	require.NoError(t, reload("cache: {memcached: {addresses: ['"+first+"']}}\n"))
	ask()
	blocks := regexp.MustCompile("^get oneprom:[0-9a-f]{64} oneprom:")
	require.Eventually(t, func() bool { return slices.ContainsFunc(firstSeen(), blocks.MatchString) }, 10*time.Second, time.Millisecond)

	require.NoError(t, reload("cache: {redis: {addresses: ['"+second+"'], password: hunter2}}\n"))
	require.NotContains(t, shownConfig(t, s), "hunter2")
	before := len(firstSeen())
	ask()
	require.Eventually(t, func() bool { return len(secondSeen()) > 0 }, 10*time.Second, time.Millisecond)
	require.NotContains(t, strings.Join(firstSeen()[before:], "\n"), "get") // what was kept may be written still

	inUse := s.kept.store.Behind()

	// What is wrong is an error, and what was before stays in use.
	dir := filepath.Dir(file)
	f := func(section, want string) {
		t.Helper()
		err := reload(section)
		require.Error(t, err)
		require.Contains(t, strings.ReplaceAll(err.Error(), dir, "DIR"), want)
	}
	writeConfig(t, filepath.Join(dir, "empty"), "\n")
	f("cache:\n  secret_file: none\n  memcached: {addresses: ['"+first+"']}\n", "cache.secret_file: open DIR/none: no such file")
	f("cache:\n  secret_file: empty\n  memcached: {addresses: ['"+first+"']}\n", "cache.secret_file: DIR/empty is empty: write the secret into it")
	f("cache:\n  redis: {addresses: ['"+first+"'], password_file: none}\n", "cache.redis: open DIR/none: no such file")
	f("cache:\n  redis: {addresses: ['"+first+"'], tls_config: {ca_file: none}}\n", "cache.redis.tls_config: unable to read CA cert: unable to read file DIR/none")
	f("cache: {memcached: {addresses: ['"+first+"']}}\nrule_files: [none.yml]\n", "none.yml") // after the cache was prepared
	require.Same(t, inUse, s.kept.store.Behind())
	ask()
	require.Len(t, firstSeen(), before)

	require.NoError(t, reload(""))
	seen := len(secondSeen())
	ask()
	require.Len(t, secondSeen(), seen)
	require.Len(t, firstSeen(), before)
}

// TestCache_NoMemory: a shared cache without a cache is a mistake.
func TestCache_NoMemory(t *testing.T) {
	s, _ := newServer(t, oneGroup+"cache: {memcached: {addresses: ['a:1']}}\n", "--cache.size=0")
	require.ErrorContains(t, s.Start(t.Context()), "cache: --cache.size=0 keeps no answers: set it to more, or remove this section")
}
