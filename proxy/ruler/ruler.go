// Package ruler evaluates rules over the server groups with upstream's rule manager,
// sends alerts with its notifier, and writes what rules record with its remote write.
// What is its own is how rules meet groups that do not answer.
package ruler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/notifier"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	upstreamfeatures "github.com/prometheus/prometheus/util/features"

	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/readback"
	"github.com/oneprom/oneprom/proxy/recorder"
	groupconfig "github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/request"
)

// discoveryPace is how long the Alertmanagers that are found wait to be used. Upstream's
// 5 s would be as long as alerts find none after a start.
const discoveryPace = time.Second

// Options of a Ruler.
type Options struct {
	Flags
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Features receives what rules can do.
	Features upstreamfeatures.Collector
	// Parser reads the expressions of rules.
	Parser parser.Parser
	// Query evaluates an expression. What becomes of groups that do not answer is in its
	// context.
	Query QueryFunc
	// Storage is where the `for` state of alerts is looked up after a restart.
	Storage storage.Queryable
	// ExternalURL is where links in alerts lead to.
	ExternalURL *url.URL
	// TypeAndUnitLabels is the feature of the same name.
	TypeAndUnitLabels bool
}

// Ruler evaluates the rules of one configuration at a time. It must be stopped.
type Ruler struct {
	opts          Options
	logger        *slog.Logger
	rules         *rules.Manager
	notifier      *notifier.Manager
	courier       *courier
	notify        rules.NotifyFunc
	finder        *discovery.Manager // of Alertmanagers
	recorder      *recorder.Recorder
	failures      *failures
	evaluations   *evaluations
	confirmations *readback.Confirmations
	slots         chan struct{} // of evaluations

	config atomic.Pointer[config.Config] // in use
	files  atomic.Pointer[ruleFiles]     // in use

	life    context.Context // of evaluations and of discovery
	endLife context.CancelFunc

	// applying is closed while rules are put to use.
	applying atomic.Pointer[chan struct{}]

	mtx     sync.Mutex // guards what follows, and is held while a configuration is put to use
	running sync.WaitGroup
	started bool
	ended   bool

	stopping sync.Once
	stopped  chan struct{} // closed when stopErr is set
	stopErr  error
}

var errStopped = errors.New("rules are not evaluated any more")

// New returns a ruler without rules.
func New(o Options) (*Ruler, error) {
	r := &Ruler{
		opts: o, logger: o.Logger, courier: newCourier(), failures: newFailures(), evaluations: newEvaluations(), slots: make(chan struct{}, o.MaxConcurrentEvals),
		stopped: make(chan struct{}),
	}
	r.applying.Store(new(make(chan struct{})))
	r.config.Store(&config.Config{Rules: config.DefaultRules})
	r.files.Store(&ruleFiles{})
	r.life, r.endLife = context.WithCancel(context.Background())

	// Those of the mechanisms are in the registry already, for the server groups.
	unseen, err := discovery.CreateAndRegisterSDMetrics(prometheus.NewRegistry())
	if err != nil {
		return nil, fmt.Errorf("discovery of Alertmanagers: %w", err)
	}
	r.finder = discovery.NewManager(r.life, o.Logger, o.Registerer, unseen, discovery.Name("notify"), discovery.Updatert(discoveryPace))
	if r.finder == nil {
		return nil, errors.New("discovery of Alertmanagers: metrics cannot be registered")
	}
	r.notifier = notifier.NewManager(&notifier.Options{
		QueueCapacity: o.NotificationQueueCapacity, DrainOnShutdown: o.DrainNotificationQueue, Registerer: o.Registerer, Do: r.courier.do,
	}, model.UTF8Validation, o.Logger.With("component", "notifier"))
	r.notify = rules.SendAlerts(r.notifier, o.ExternalURL.String())
	r.confirmations = readback.NewConfirmations(o.Storage, r.config.Load, o.Logger)
	r.recorder = recorder.New(recorder.Options{
		Logger: o.Logger, Registerer: o.Registerer, Path: o.AgentPath,
		FlushDeadline: time.Duration(o.FlushDeadline), TypeAndUnitLabels: o.TypeAndUnitLabels,
	})
	r.rules = rules.NewManager(&rules.ManagerOptions{
		NameValidationScheme: model.UTF8Validation,
		ExternalURL:          o.ExternalURL,
		QueryFunc:            r.query,
		NotifyFunc:           r.notify,
		// Looking up the `for` state is content with the groups that answer.
		Context:         request.With(r.life, func(q *request.Request) { q.Partial = groupconfig.PartialWarn }),
		Appendable:      &recordings{r.recorder, r.evaluations, r.confirmations},
		Queryable:       &memory{o.Storage, func() *config.Config { return r.config.Load() }},
		Logger:          slog.New(quietHandler{o.Logger.With("component", "rule manager").Handler()}),
		Registerer:      o.Registerer,
		OutageTolerance: time.Duration(o.ForOutageTolerance),
		ForGracePeriod:  time.Duration(o.ForGracePeriod),
		ResendDelay:     time.Duration(o.ResendDelay),
		GroupLoader:     &loader{r},
		DefaultRuleQueryOffset: func() time.Duration {
			return time.Duration(r.config.Load().Global.RuleQueryOffset)
		},
		MaxConcurrentEvals:     int64(o.MaxConcurrentEvals),
		ConcurrentEvalsEnabled: true,
		FeatureRegistry:        o.Features,
		Parser:                 o.Parser,
	})
	return r, nil
}

// Rules are those that are evaluated here.
func (r *Ruler) Rules() *rules.Manager { return r.rules }

// Notifier is what sends alerts to Alertmanagers.
func (r *Ruler) Notifier() *notifier.Manager { return r.notifier }

// Interrupt begins to stop, and does not wait. Evaluations under way are cancelled.
func (r *Ruler) Interrupt() {
	r.stopping.Do(func() {
		go func() {
			defer close(r.stopped)
			r.stopErr = r.end()
		}()
	})
}

// Stop ends the evaluation of rules, and waits until the alerts and samples that are
// there already have been sent, or ctx ends.
func (r *Ruler) Stop(ctx context.Context) error {
	r.Interrupt()
	select {
	case <-r.stopped:
		return r.stopErr
	case <-ctx.Done():
		return fmt.Errorf("sending the last alerts and samples was given up: %w", context.Cause(ctx))
	}
}

func (r *Ruler) end() error {
	r.endLife()
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.ended = true
	if r.started {
		r.rules.Stop()
		defer r.courier.changing()()
		r.notifier.Stop() // which sends what the rules have queued
		r.running.Wait()
		r.courier.close()
	}
	return r.recorder.Close()
}

// Hidden returns what the configuration in use hides of what its rules write, or else what could not be
// read back.
func (r *Ruler) Hidden() []readback.Hidden {
	if told := readback.Configured(r.config.Load(), r.files.Load().written(), time.Now()); len(told) > 0 {
		return told
	}
	return r.confirmations.Hidden()
}
