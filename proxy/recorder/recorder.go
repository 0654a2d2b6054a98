// Package recorder takes the samples that rules make, and writes them by remote write. It is
// what Prometheus is in agent mode: a write-ahead log, which remote write follows.
package recorder

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	upstream "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/agent"
	"gopkg.in/yaml.v3"
)

// Options of a Recorder.
type Options struct {
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Path is the directory of the log.
	Path string
	// FlushDeadline is how long samples may take to be written that wait when a target goes.
	FlushDeadline time.Duration
	// TypeAndUnitLabels is the feature of the same name.
	TypeAndUnitLabels bool
}

// Recorder takes the samples that rules make. As long as no configuration had a remote_write
// there is no log, and samples are dropped. It must be closed.
type Recorder struct {
	logger     *slog.Logger
	registerer prometheus.Registerer
	path       string
	metrics    *metrics
	remote     *remote.Storage
	// remoteMetrics has the metrics of remote.
	remoteMetrics *prometheus.Registry
	progress      progress
	applied       *upstream.Config // nil: it is not known what is written where

	// mtx guards what follows. Appenders hold it for reading until they end.
	mtx        sync.RWMutex
	log        *agent.DB // nil: not open
	logMetrics *revocable
	writes     bool // if not, samples are dropped
	to         storage.Appendable
	tried      time.Time // when the log was last to be opened again

	// damaged is set when the log has to be opened again.
	damaged atomic.Bool
	// committing is held while the log is written to, and guards what follows.
	committing sync.Mutex
	failure    error // why nothing is written to the log; nil: it is
	lost       int   // samples that were not written since the failure
	newest     int64 // time of the newest sample that was to be written
}

// New returns a recorder that drops samples.
func New(o Options) *Recorder {
	r := &Recorder{
		logger: o.Logger.With("component", "remote"), registerer: o.Registerer, path: o.Path, metrics: newMetrics(o.Registerer),
		remoteMetrics: prometheus.NewRegistry(), progress: progress{targets: map[target]*reached{}},
	}
	o.Registerer.MustRegister(r.remoteMetrics)
	start := func() (int64, error) { return int64(model.Latest), nil }
	r.remote = remote.NewStorage(r.logger, r.remoteMetrics, start, o.Path, o.FlushDeadline, nil, o.TypeAndUnitLabels)
	r.to = r.remote // which drops samples: it only writes what it finds in the log
	return r
}

// Open opens the log, and reports whether it was not open. It stays open, also if a later
// configuration does not write.
func (r *Recorder) Open() (opened bool, err error) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if r.log != nil {
		return false, nil
	}
	err = r.openLog()
	return err == nil, err
}

// CloseLog closes the log, if it is open.
func (r *Recorder) CloseLog() error {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return r.closeLog()
}

// Apply has samples written as a configuration says. If that says the same as the one
// before, nothing is touched: upstream would give each queue a new client, while it may
// be sending by the old one, without a lock. After an error, applying the configuration
// before restores what was.
func (r *Recorder) Apply(c *upstream.Config) error {
	if r.applied != nil && labels.Equal(r.applied.GlobalConfig.ExternalLabels, c.GlobalConfig.ExternalLabels) &&
		reflect.DeepEqual(r.applied.RemoteWriteConfigs, c.RemoteWriteConfigs) {
		return nil
	}
	ordered, err := newFirst(c, r.applied)
	if err != nil {
		return err
	}
	r.applied = nil
	r.mtx.Lock()
	r.writes = len(c.RemoteWriteConfigs) > 0
	r.route()
	r.mtx.Unlock()
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

// Close writes what is in the log, within the deadline for flushing, and closes it.
func (r *Recorder) Close() error {
	return errors.Join(r.remote.Close(), r.CloseLog())
}

// Check says why remote write would refuse a configuration: certificates, say, are files that
// may be missing.
func Check(c *upstream.Config) error {
	seen := map[string]int{}
	for i, rw := range c.RemoteWriteConfigs {
		key, err := keyOf(rw)
		if err == nil {
			err = writeClient(rw)
		}
		if err != nil {
			return fmt.Errorf("remote_write[%d]: %w", i, err)
		}
		if first, twice := seen[key]; twice {
			return fmt.Errorf("remote_write[%d]: what it has effect with is the same as of remote_write[%d]: remove one, or give each a name", i, first)
		}
		seen[key] = i
	}
	return nil
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
