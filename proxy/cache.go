package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	commoncfg "github.com/prometheus/common/config"

	"github.com/oneprom/oneprom/promqlx/cache"
	"github.com/oneprom/oneprom/promqlx/cache/shared"
	"github.com/oneprom/oneprom/proxy/config"
)

// kept is the cache of answers to queries: in memory, and in what the `cache` section says.
type kept struct {
	cache   *cache.Cache
	store   *cache.Tiered // of the cache
	metrics *shared.Metrics
	shared  *shared.Store // nil if there is none
}

// newKept returns a cache of so many bytes of memory, and of no servers yet.
func newKept(bytes int, reg prometheus.Registerer) *kept {
	k := &kept{store: cache.NewTiered(cache.NewMemory(bytes)), metrics: shared.NewMetrics(reg)}
	k.cache = cache.New(k.store, reg)
	return k
}

// flush drops kept answers; nil is the one of a oneprom that keeps none.
func (k *kept) flush() func(cache.Flush) {
	if k == nil {
		return nil
	}
	return k.cache.Flush
}

// prepareCache connects to the servers that the `cache` section says, anew at each reload: the files that
// it names may have changed.
func (s *Server) prepareCache(cfg *config.Config) (change, error) {
	if cfg.Cache != nil && s.kept == nil {
		return change{}, fmt.Errorf("%s: --cache.size=0 keeps no answers: set it to more, or remove this section", cfg.At("cache"))
	}
	if s.kept == nil {
		return change{}, nil
	}
	next, err := s.sharedStore(cfg)
	if err != nil {
		return change{}, err
	}
	before := s.kept.shared
	return change{
		commit:   func(context.Context) error { s.kept.use(next); return nil },
		rollback: func() error { s.kept.use(before); return nil },
		finish:   func() { closeShared(before) },
		discard:  func() { closeShared(next) },
	}, nil
}

// use has a store used behind memory; nil is none.
func (k *kept) use(s *shared.Store) {
	k.shared = s
	if s == nil {
		k.store.Use(nil)
		return
	}
	k.store.Use(s)
}

func closeShared(s *shared.Store) {
	if s != nil {
		s.Close()
	}
}

// sharedStore returns the store that a configuration says; nil if that is none.
func (s *Server) sharedStore(cfg *config.Config) (*shared.Store, error) {
	servers := cfg.Cache.Servers()
	if servers == nil {
		return nil, nil
	}
	o := shared.Options{
		Addresses: servers.Addresses, Timeout: time.Duration(servers.Timeout), WriteTimeout: time.Duration(servers.WriteTimeout),
		MaxIdle: servers.MaxIdleConnections, Metrics: s.kept.metrics, Logger: s.logger.With("component", "cache"),
	}
	key := "memcached"
	if cfg.Cache.Redis != nil {
		key = "redis"
	}
	var err error
	if o.Secret, err = secretOf(cfg.Cache.SecretFile); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.At("cache", "secret_file"), err)
	}
	if o.TLS, err = tlsOf(servers.TLSConfig); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.At("cache", key, "tls_config"), err)
	}
	if cfg.Cache.Redis == nil {
		store, err := shared.NewMemcached(o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cfg.At("cache", key), err)
		}
		return store, nil
	}
	store, err := shared.NewRedis(o, loginOf(cfg.Cache.Redis))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.At("cache", key), err)
	}
	return store, nil
}

// loginOf returns what Redis wants to know. A file with the password is read for each connection.
func loginOf(r *config.CacheRedis) shared.Login {
	l := shared.Login{Username: r.Username, DB: r.DB}
	switch {
	case r.PasswordFile != "":
		l.Password = func() (string, error) {
			password, err := secretOf(r.PasswordFile)
			return string(password), err
		}
	case r.Password != "":
		l.Password = func() (string, error) { return string(r.Password), nil }
	}
	return l
}

// secretOf reads a secret, which is what a file has but for white space around it. "" is no file.
func secretOf(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	secret := bytes.TrimSpace(data)
	if len(secret) == 0 {
		return nil, errors.New(file + " is empty: write the secret into it")
	}
	return secret, nil
}

func tlsOf(cfg *commoncfg.TLSConfig) (*tls.Config, error) {
	if cfg == nil {
		return nil, nil
	}
	return commoncfg.NewTLSConfig(cfg)
}
