package config

import (
	"net"
	"strings"
	"time"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"gopkg.in/yaml.v3"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

// Cache is where answers are kept beside memory. At most one of Memcached and Redis is set.
type Cache struct {
	// SecretFile has the secret that seals what is kept; "" is none.
	SecretFile string          `yaml:"secret_file,omitempty"`
	Memcached  *CacheMemcached `yaml:"memcached,omitempty"`
	Redis      *CacheRedis     `yaml:"redis,omitempty"`
}

// CacheMemcached is a shared cache in memcached.
type CacheMemcached struct {
	CacheServers `yaml:",inline"`
}

// CacheRedis is a shared cache in Redis.
type CacheRedis struct {
	CacheServers `yaml:",inline"`
	Username     string           `yaml:"username,omitempty"`
	Password     commoncfg.Secret `yaml:"password,omitempty"`
	PasswordFile string           `yaml:"password_file,omitempty"`
	DB           int              `yaml:"db,omitempty"`
}

// CacheServers are the servers of a shared cache.
type CacheServers struct {
	// Addresses are host:port, dns+host:port or dnssrv+name.
	Addresses []string `yaml:"addresses,omitempty"`
	// Timeout is how long reading may take, WriteTimeout how long writing may.
	Timeout            model.Duration `yaml:"timeout,omitempty"`
	WriteTimeout       model.Duration `yaml:"write_timeout,omitempty"`
	MaxIdleConnections int            `yaml:"max_idle_connections,omitempty"`
	// TLSConfig is nil for connections without TLS.
	TLSConfig *commoncfg.TLSConfig `yaml:"tls_config,omitempty"`
}

// DefaultCacheServers holds the defaults of `memcached` and `redis`.
var DefaultCacheServers = CacheServers{
	Timeout:            model.Duration(100 * time.Millisecond),
	WriteTimeout:       model.Duration(500 * time.Millisecond),
	MaxIdleConnections: 16,
}

// Servers returns the servers of the shared cache, nil if there is none.
func (c *Cache) Servers() *CacheServers {
	switch {
	case c == nil:
		return nil
	case c.Memcached != nil:
		return &c.Memcached.CacheServers
	case c.Redis != nil:
		return &c.Redis.CacheServers
	}
	return nil
}

// setDirectory makes relative paths relative to dir.
func (c *Cache) setDirectory(dir string) {
	c.SecretFile = commoncfg.JoinDir(dir, c.SecretFile)
	if c.Redis != nil {
		c.Redis.PasswordFile = commoncfg.JoinDir(dir, c.Redis.PasswordFile)
	}
	c.Servers().TLSConfig.SetDirectory(dir)
}

// readCache decodes and checks `cache`, which check has found to be clean.
func (c *checker) readCache(n *yaml.Node) *Cache {
	n = deref(n)
	cache := &Cache{}
	add := func(msg string, path ...any) {
		c.add(locate(n, path, n), append(groupconfig.Path{"cache"}, path...), "%s", msg)
	}
	// What is not said has its default, also below a key without a value.
	if _, below := lookup(n, "memcached"); below != nil {
		cache.Memcached = &CacheMemcached{DefaultCacheServers}
	}
	if _, below := lookup(n, "redis"); below != nil {
		cache.Redis = &CacheRedis{CacheServers: DefaultCacheServers}
	}
	if err := n.Decode(cache); err != nil {
		add(plain(err))
		return nil
	}
	switch {
	case cache.Memcached != nil && cache.Redis != nil:
		add("there is memcached, too: remove one of them", "redis")
	case cache.Servers() == nil:
		add("names no servers: add `memcached: {addresses: ['host:11211']}` or `redis: {addresses: ['host:6379']}`, or remove the section")
	}
	if cache.Memcached != nil {
		checkCacheServers(&cache.Memcached.CacheServers, "memcached", add)
	}
	if cache.Redis != nil {
		checkCacheServers(&cache.Redis.CacheServers, "redis", add)
		checkCacheRedis(cache.Redis, add)
	}
	return cache
}

func checkCacheServers(s *CacheServers, key string, add func(msg string, path ...any)) {
	if len(s.Addresses) == 0 {
		add("there are no addresses: list the servers, such as `addresses: ['host:port']`", key)
	}
	for i, address := range s.Addresses {
		if !isCacheAddress(address) {
			add("not the address of a server: write host:port, dns+host:port (all addresses of a host) or dnssrv+name (its SRV records)", key, "addresses", i)
		}
	}
	if s.Timeout <= 0 {
		add("must be longer than 0s", key, "timeout")
	}
	if s.WriteTimeout <= 0 {
		add("must be longer than 0s", key, "write_timeout")
	}
	if s.MaxIdleConnections < 1 {
		add("must be at least 1", key, "max_idle_connections")
	}
}

func checkCacheRedis(r *CacheRedis, add func(msg string, path ...any)) {
	if r.Password != "" && r.PasswordFile != "" {
		add("there is a password, too: remove one of them", "redis", "password_file")
	}
	if r.Username != "" && r.Password == "" && r.PasswordFile == "" {
		add("there is no password for it: add password or password_file", "redis", "username")
	}
	if r.DB < 0 {
		add("must not be negative", "redis", "db")
	}
}

// isCacheAddress reports whether an address is one of the three forms.
func isCacheAddress(address string) bool {
	if name, ok := strings.CutPrefix(address, "dnssrv+"); ok {
		return name != "" && !strings.Contains(name, ":")
	}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(address, "dns+"))
	return err == nil && host != "" && port != "" && !strings.ContainsAny(address, "/@ ")
}
