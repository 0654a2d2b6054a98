package shared

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// resolverOf answers from maps.
type resolverOf struct {
	mtx   sync.Mutex
	hosts map[string][]string
	srv   map[string][]*net.SRV
}

var errNoHost = errors.New("no such host")

// change has f change the maps.
func (r *resolverOf) change(f func()) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	f()
}

func (r *resolverOf) LookupHost(_ context.Context, host string) ([]string, error) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if r.hosts[host] == nil {
		return nil, errNoHost
	}
	return r.hosts[host], nil
}

func (r *resolverOf) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if service != "" || proto != "" || r.srv[name] == nil {
		return "", nil, errNoHost
	}
	return name, r.srv[name], nil
}

// TestStore_Discovery: servers that DNS names are used, those that it no longer names are not, and
// those that stay keep their connections. Names that cannot be looked up change nothing.
func TestStore_Discovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &resolverOf{
			hosts: map[string][]string{"cache": {"10.0.0.2", "10.0.0.1", "::1"}},
			srv:   map[string][]*net.SRV{"_m._tcp.cache": {{Target: "b.cache.", Port: 2}, {Target: "a.cache.", Port: 1}}},
		}
		s, _ := kinds()[0].open(t, Options{Addresses: []string{"static:1", "dns+cache:11211", "dnssrv+_m._tcp.cache"}, resolve: r, dial: pipes(newFake().memcached)})
		nodes := func() (list []node) {
			for _, server := range s.servers.Load().servers {
				list = append(list, server.node)
			}
			return list
		}
		synctest.Wait()
		require.Equal(t, []node{
			{"static:1", "static"},
			{"10.0.0.1:11211", "cache"},
			{"10.0.0.2:11211", "cache"},
			{"[::1]:11211", "cache"},
			{"a.cache:1", "a.cache"},
			{"b.cache:2", "b.cache"},
		}, nodes())
		first := s.servers.Load().servers[1]

		r.change(func() {
			r.hosts["cache"] = []string{"10.0.0.3", "10.0.0.1"}
			delete(r.srv, "_m._tcp.cache")
		})
		time.Sleep(lookupInterval + 1)
		synctest.Wait()
		require.Equal(t, []node{
			{"static:1", "static"},
			{"10.0.0.1:11211", "cache"},
			{"10.0.0.3:11211", "cache"},
			{"a.cache:1", "a.cache"},
			{"b.cache:2", "b.cache"},
		}, nodes())
		require.Same(t, first, s.servers.Load().servers[1])

		r.change(func() { r.hosts["cache"] = []string{} })
		time.Sleep(lookupInterval + 1)
		synctest.Wait()
		require.Len(t, nodes(), 5, "no address at all is a failure, too")

		many := make([]string, 10_000)
		for i := range many {
			many[i] = net.IPv4(10, 1, byte(i>>8), byte(i)).String()
		}
		r.change(func() { r.hosts["cache"] = many })
		time.Sleep(lookupInterval + 1)
		synctest.Wait()
		require.Len(t, nodes(), maxServers+3)
	})
}
