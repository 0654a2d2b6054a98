package ruler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	upstream "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/agent"
	"github.com/prometheus/sigv4"
	"gopkg.in/yaml.v3"
)

// recorder takes the samples that rules make. It is what Prometheus is in agent mode: a
// write-ahead log, which remote write follows. As long as no configuration had a
// remote_write there is no log, and samples are dropped.
type recorder struct {
	logger     *slog.Logger
	registerer prometheus.Registerer
	path       string
	remote     *remote.Storage
	log        *agent.DB // nil: not opened yet
	logMetrics *revocable
	applied    *upstream.Config // nil: it is not known what is written where
	to         atomic.Pointer[storage.Appendable]
}

func newRecorder(o Options) *recorder {
	r := &recorder{logger: o.Logger.With("component", "remote"), registerer: o.Registerer, path: o.AgentPath}
	start := func() (int64, error) { return int64(model.Latest), nil }
	r.remote = remote.NewStorage(r.logger, o.Registerer, start, o.AgentPath, time.Duration(o.FlushDeadline), nil, o.TypeAndUnitLabels)
	r.use(r.remote) // which drops samples: it only writes what it finds in the log
	return r
}

func (r *recorder) use(to storage.Appendable) { r.to.Store(&to) }

// open opens the log, and reports whether it was not open. It stays open, also if a later
// configuration does not write.
func (r *recorder) open() (opened bool, err error) {
	if r.log != nil {
		return false, nil
	}
	r.logMetrics = &revocable{Registerer: r.registerer}
	r.log, err = agent.Open(r.logger, r.logMetrics, r.remote, r.path, agent.DefaultOptions())
	if err != nil {
		r.log = nil
		r.logMetrics.revoke()
		return false, fmt.Errorf("--storage.agent.path=%s: %w", r.path, err)
	}
	r.log.SetWriteNotified(r.remote)
	return true, nil
}

// closeLog closes the log, if it is open.
func (r *recorder) closeLog() error {
	if r.log == nil {
		return nil
	}
	err := r.log.Close()
	r.logMetrics.revoke()
	r.log = nil
	return err
}

// apply has samples written as a configuration says. If that says the same as the one
// before, nothing is touched: upstream would give each queue a new client, while it may
// be sending by the old one, without a lock. After an error, applying the configuration
// before restores what was.
func (r *recorder) apply(c *upstream.Config) error {
	if r.applied != nil && labels.Equal(r.applied.GlobalConfig.ExternalLabels, c.GlobalConfig.ExternalLabels) &&
		reflect.DeepEqual(r.applied.RemoteWriteConfigs, c.RemoteWriteConfigs) {
		return nil
	}
	ordered, err := newFirst(c, r.applied)
	if err != nil {
		return err
	}
	r.applied = nil
	if len(c.RemoteWriteConfigs) == 0 {
		r.use(r.remote)
	} else {
		r.use(storage.NewFanout(r.logger, r.log, r.remote))
	}
	if err := r.remote.ApplyConfig(ordered); err != nil {
		return err
	}
	r.applied = c
	return nil
}

// newFirst is a configuration with the entries of remote_write first that are not in the
// one before. Upstream takes the entries that stay out of its list of queues one by one: if
// one that comes later fails, nobody could stop or use their queues any more.
func newFirst(c, before *upstream.Config) (*upstream.Config, error) {
	stay := map[string]bool{}
	if before != nil {
		for _, rw := range before.RemoteWriteConfigs {
			key, err := keyOf(rw)
			if err != nil {
				return nil, err
			}
			stay[key] = true
		}
	}
	var fresh, old []*upstream.RemoteWriteConfig
	for _, rw := range c.RemoteWriteConfigs {
		switch key, err := keyOf(rw); {
		case err != nil:
			return nil, err
		case stay[key]:
			old = append(old, rw)
		default:
			fresh = append(fresh, rw)
		}
	}
	ordered := *c
	ordered.RemoteWriteConfigs = append(fresh, old...)
	return &ordered, nil
}

// keyOf is the text by which upstream knows an entry of remote_write again. Secrets are not
// in it.
func keyOf(rw *upstream.RemoteWriteConfig) (string, error) {
	text, err := yaml.Marshal(rw)
	return string(text), err
}

// Appender implements storage.Appendable.
func (r *recorder) Appender(ctx context.Context) storage.Appender {
	return (*r.to.Load()).Appender(ctx)
}

// close writes what is in the log, within the deadline for flushing, and closes it.
func (r *recorder) close() error {
	return errors.Join(r.remote.Close(), r.closeLog())
}

// alertmanagerClient makes the client of an Alertmanager, as the notifier will.
func alertmanagerClient(am *upstream.AlertmanagerConfig) error {
	client, err := commoncfg.NewClientFromConfig(am.HTTPClientConfig, "alertmanager")
	if err == nil && am.SigV4Config != nil {
		_, err = sigv4.NewSigV4RoundTripper(am.SigV4Config, client.Transport)
	}
	return err
}

// writeClient makes the client of a target, as remote write will.
func writeClient(rw *upstream.RemoteWriteConfig) error {
	_, err := remote.NewWriteClient("", &remote.ClientConfig{
		URL: rw.URL, WriteProtoMsg: rw.ProtobufMessage, Timeout: rw.RemoteTimeout, HTTPClientConfig: rw.HTTPClientConfig,
		SigV4Config: rw.SigV4Config, AzureADConfig: rw.AzureADConfig, GoogleIAMConfig: rw.GoogleIAMConfig,
		Headers: rw.Headers, RoundRobinDNS: rw.RoundRobinDNS,
	})
	return err
}

// revocable takes metrics back that were registered with it. The log's own way leaves some.
type revocable struct {
	prometheus.Registerer
	registered []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (r *revocable) Register(c prometheus.Collector) error {
	if err := r.Registerer.Register(c); err != nil {
		return err
	}
	r.registered = append(r.registered, c)
	return nil
}

// MustRegister implements prometheus.Registerer.
func (r *revocable) MustRegister(list ...prometheus.Collector) {
	for _, c := range list {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

func (r *revocable) revoke() {
	for _, c := range r.registered {
		r.Unregister(c)
	}
	r.registered = nil
}
