package shared

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// lookupInterval is how often names are looked up, and lookupTimeout how long that may take.
	lookupInterval = 30 * time.Second
	lookupTimeout  = 5 * time.Second
	// maxServers is how many servers are used of one address at most, however many DNS says.
	maxServers = 256
)

// node is a server as it is dialled.
type node struct {
	address string // host:port
	name    string // that its certificate must have
}

// resolver is what is needed of a net.Resolver.
type resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// directory knows the servers that addresses stand for.
type directory struct {
	resolve resolver
	logger  *slog.Logger
	entries []*entry
}

// entry is one address.
type entry struct {
	address, scheme, host, port string
	nodes                       []node // of the last time that it could be looked up
	failing                     bool
}

// newDirectory returns the servers of addresses. Nothing is looked up yet.
func newDirectory(o Options) (*directory, error) {
	d := &directory{resolve: o.resolve, logger: o.Logger}
	for _, address := range o.Addresses {
		scheme, host, port, err := splitAddress(address)
		if err != nil {
			return nil, err
		}
		e := &entry{address: address, scheme: scheme, host: host, port: port}
		if scheme == "" {
			e.nodes = []node{{net.JoinHostPort(host, port), host}}
		}
		d.entries = append(d.entries, e)
	}
	return d, nil
}

// cutScheme cuts how an address is looked up from its beginning.
func cutScheme(address string) (scheme, rest string) {
	for _, scheme := range []string{"dns", "dnssrv"} {
		if rest, ok := strings.CutPrefix(address, scheme+"+"); ok {
			return scheme, rest
		}
	}
	return "", address
}

// nodes are all servers that are known.
func (d *directory) nodes() (all []node) {
	for _, e := range d.entries {
		all = append(all, e.nodes...)
	}
	return all
}

// changes reports whether there is something to be looked up.
func (d *directory) changes() bool {
	return slices.ContainsFunc(d.entries, func(e *entry) bool { return e.scheme != "" })
}

// follow looks the addresses up until ctx ends, and calls use with what was found each time.
func (d *directory) follow(ctx context.Context, use func([]node)) {
	ticker := time.NewTicker(lookupInterval)
	defer ticker.Stop()
	for {
		for _, e := range d.entries {
			if e.scheme != "" {
				d.refresh(ctx, e)
			}
		}
		if ctx.Err() != nil {
			return
		}
		use(d.nodes())
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// refresh looks an address up. If that fails, the servers of the last time stay.
func (d *directory) refresh(ctx context.Context, e *entry) {
	lookup, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	nodes, err := e.lookUp(lookup, d.resolve)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil && !e.failing:
		d.logger.Warn("servers of the shared cache cannot be looked up; those known before are used", "address", e.address, "err", err)
	case err == nil && e.failing:
		d.logger.Info("servers of the shared cache are found again", "address", e.address, "servers", len(nodes))
	}
	if e.failing = err != nil; !e.failing {
		e.nodes = nodes
	}
}

// lookUp returns what an address stands for, in an order that does not change.
func (e *entry) lookUp(ctx context.Context, r resolver) (nodes []node, err error) {
	switch e.scheme {
	case "dns":
		hosts, err := r.LookupHost(ctx, e.host)
		if err != nil {
			return nil, err
		}
		for _, host := range hosts {
			nodes = append(nodes, node{net.JoinHostPort(host, e.port), e.host})
		}
	case "dnssrv":
		_, records, err := r.LookupSRV(ctx, "", "", e.host)
		if err != nil {
			return nil, err
		}
		for _, record := range records {
			host := strings.TrimSuffix(record.Target, ".")
			nodes = append(nodes, node{net.JoinHostPort(host, strconv.Itoa(int(record.Port))), host})
		}
	}
	if len(nodes) == 0 {
		return nil, fmt.Errorf("%s: DNS has no such records", e.host)
	}
	slices.SortFunc(nodes, func(a, b node) int { return strings.Compare(a.address, b.address) })
	return nodes[:min(len(nodes), maxServers)], nil
}
