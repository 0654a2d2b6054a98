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
	applied    *upstream.Config
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

// open opens the log. It stays open, also if a later configuration does not write.
func (r *recorder) open() (err error) {
	if r.log != nil {
		return nil
	}
	r.log, err = agent.Open(r.logger, r.registerer, r.remote, r.path, agent.DefaultOptions())
	if err != nil {
		return fmt.Errorf("--storage.agent.path=%s: %w", r.path, err)
	}
	r.log.SetWriteNotified(r.remote)
	return nil
}

// apply has samples written as a configuration says. If that says the same as the one
// before, nothing is touched: upstream would give each queue a new client, while it may
// be sending by the old one, without a lock.
func (r *recorder) apply(c *upstream.Config) error {
	if r.applied != nil && labels.Equal(r.applied.GlobalConfig.ExternalLabels, c.GlobalConfig.ExternalLabels) &&
		reflect.DeepEqual(r.applied.RemoteWriteConfigs, c.RemoteWriteConfigs) {
		return nil
	}
	r.applied = nil
	if len(c.RemoteWriteConfigs) == 0 {
		r.use(r.remote)
	} else {
		r.use(storage.NewFanout(r.logger, r.log, r.remote))
	}
	if err := r.remote.ApplyConfig(c); err != nil {
		return err
	}
	r.applied = c
	return nil
}

// Appender implements storage.Appendable.
func (r *recorder) Appender(ctx context.Context) storage.Appender {
	return (*r.to.Load()).Appender(ctx)
}

// close writes what is in the log, within the deadline for flushing, and closes it.
func (r *recorder) close() error {
	errs := []error{r.remote.Close()}
	if r.log != nil {
		errs = append(errs, r.log.Close())
	}
	return errors.Join(errs...)
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
