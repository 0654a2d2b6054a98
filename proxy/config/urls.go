package config

import (
	"fmt"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	commoncfg "github.com/prometheus/common/config"
	upstream "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"gopkg.in/yaml.v3"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/targets"
)

// urlKeys are the keys whose strings are URLs, beside those whose type says so.
var urlKeys = []string{"url", "token_url"}

// url checks a scalar of some type that path leads to, if it is a URL. Upstream takes whatever can be
// parsed, and fails when it asks.
func (c *checker) url(n *yaml.Node, form reflect.Type, path groupconfig.Path, at *yaml.Node) {
	key, ok := path[len(path)-1].(string)
	typed := form == reflect.TypeFor[commoncfg.URL]()
	isURL := typed || form.Kind() == reflect.String && slices.Contains(urlKeys, key)
	if !ok || !isURL || n.Value == "" && (!typed || key != "url") {
		return
	}
	u, err := url.Parse(n.Value)
	schemes, what := []string{"http", "https"}, "not the URL of an http or https server"
	if key == "proxy_url" {
		schemes, what = []string{"http", "https", "socks5", "socks5h"}, "not the URL of a proxy, as http://host:port or socks5://host:port"
	}
	switch {
	case err != nil && key == "url": // which upstream has said
	case err != nil || u.Hostname() == "" || !slices.Contains(schemes, u.Scheme):
		c.addMinor(at, path, what)
	case !isPort(u.Port()):
		c.addMinor(at, path, what+": ports go from 1 to 65535")
	}
}

// isPort reports whether s is the number of a port, or none.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}

// checkCollector checks where traces are sent.
func (c *checker) checkCollector(n *yaml.Node, t *upstream.TracingConfig) {
	at := groupconfig.Path{"endpoint"}
	scheme, _, named := strings.Cut(t.Endpoint, "://")
	switch {
	case t.Endpoint == "": // which upstream has said
	case named && (scheme == "http" || scheme == "https"):
		c.add(locate(n, at, n), append(groupconfig.Path{"tracing"}, at...), "host:port, without %s://: client_type says http or grpc, and insecure whether there is TLS", scheme)
	case t.ClientType != upstream.TracingClientHTTP && (named || strings.HasPrefix(t.Endpoint, "unix:")): // a name of gRPC
	case targets.ValidateAddress(t.Endpoint) != nil:
		c.add(locate(n, at, n), append(groupconfig.Path{"tracing"}, at...), "not of the form host:port")
	}
}

// checkAlertmanagers checks how the Alertmanagers of an entry n, which path leads to, are reached.
func (c *checker) checkAlertmanagers(n *yaml.Node, path groupconfig.Path, am *upstream.AlertmanagerConfig) {
	add := func(msg string, at ...any) {
		c.add(locate(n, at, n), slices.Concat(path, groupconfig.Path(at)), "%s", msg)
	}
	if am.Scheme != "http" && am.Scheme != "https" {
		add(fmt.Sprintf("%q is neither http nor https", am.Scheme), "scheme")
	}
	if !isPath(am.PathPrefix) {
		add("not the path of a URL", "path_prefix")
	}
	if len(am.RelabelConfigs) > 0 {
		return // which may make addresses of anything
	}
	i := 0
	for _, cfg := range am.ServiceDiscoveryConfigs {
		static, ok := cfg.(discovery.StaticConfig)
		if !ok {
			continue
		}
		for _, tg := range static {
			for j, target := range tg.Targets {
				if err := targets.ValidateAddress(string(target["__address__"])); err != nil {
					add(err.Error(), "static_configs", i, "targets", j)
				}
			}
			i++
		}
	}
}

// isPath reports whether a prefix, which need not begin with a slash, makes the path of a URL.
func isPath(prefix string) bool {
	_, err := url.Parse("http://host" + path.Join("/", prefix))
	return err == nil && !strings.ContainsAny(prefix, "?#")
}
