package output

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/apache/pulsar-client-go/pulsar/auth"
)

// adminPatience bounds each question to the admin API, which is worth less than the start of a pipeline.
const adminPatience = 10 * time.Second

// admin asks Pulsar's admin API about the de-duplication of one topic. The protocol of producers does not tell: there the
// only way to learn it is to send a message twice.
type admin struct {
	base   string // of the topic, without a slash at its end
	client *http.Client
}

// newAdmin makes one. The provider is the Pulsar client's, nil for none.
func newAdmin(adminURL, topic string, settings *tls.Config, provider any) *admin {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = settings
	transport.DisableKeepAlives = true // a question or two, and never again
	var tripper http.RoundTripper = transport
	if p, ok := provider.(auth.Provider); ok {
		tripper = bearer{provider: p, next: transport}
	}
	return &admin{
		base:   strings.TrimRight(adminURL, "/") + "/admin/v2/" + topicPath(topic),
		client: &http.Client{Transport: tripper, Timeout: adminPatience},
	}
}

// topicPath is a topic's place below admin/v2: persistent/tenant/namespace/name.
func topicPath(topic string) string {
	domain, rest, found := strings.Cut(topic, "://")
	if !found {
		domain, rest = "persistent", topic
	}
	parts := strings.SplitN(rest, "/", 3)
	if len(parts) < 3 {
		parts = []string{"public", "default", rest}
	}
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return domain + "/" + strings.Join(parts, "/")
}

// bearer shows the token with every request, the redirected ones too: a broker sends who asks to the one that has the
// topic, and net/http shows nothing to another host.
type bearer struct {
	provider auth.Provider
	next     http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := b.provider.GetData()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fieldAuth, err)
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(token))
	return b.next.RoundTrip(r)
}

// errAdmin is the answer of an admin API that is none of the wanted ones.
type errAdmin struct {
	status int
	reason string
}

func (e *errAdmin) Error() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s: %s", e.status, http.StatusText(e.status), e.reason))
}

// do sends a request, for a path below the topic's, and decodes the answer into out unless that is nil.
func (a *admin) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		content, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(content)
	}
	r, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := a.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	switch {
	case answer.StatusCode < 200 || answer.StatusCode > 299:
		return &errAdmin{answer.StatusCode, reasonOf(content)}
	case err != nil || out == nil || answer.StatusCode == http.StatusNoContent:
		return err
	}
	if err := json.Unmarshal(content, out); err != nil {
		return fmt.Errorf("%s %s answered with something else than Pulsar's admin API would: %w", method, r.URL.Redacted(), err)
	}
	return nil
}

// reasonOf finds the reason in an error's body, in one line of bounded length.
func reasonOf(content []byte) string {
	var said struct{ Reason string }
	if json.Unmarshal(content, &said) == nil && said.Reason != "" {
		content = []byte(said.Reason)
	}
	line := strings.Join(strings.Fields(string(content)), " ")
	return line[:min(len(line), 200)]
}

// deduplicates tells whether the policies that apply to the topic, its own, its namespace's and the broker's, switch
// de-duplication on.
func (a *admin) deduplicates(ctx context.Context) (bool, error) {
	var on bool // no content: none of the policies says anything, which means off
	err := a.do(ctx, http.MethodGet, "/deduplicationEnabled?applied=true", nil, &on)
	return on, err
}

// enable switches it on for the topic alone: what else there is in the namespace is not ours.
func (a *admin) enable(ctx context.Context) error {
	return a.do(ctx, http.MethodPost, "/deduplicationEnabled", true, nil)
}

// isInForce tells whether a partition acts by the policy, which takes a moment to reach the broker that has it; until then
// it stores a message twice that is sent twice. Name is the whole name of the partition. What is not loaded, or does not
// exist yet, acts by it from the beginning.
func (a *admin) isInForce(ctx context.Context, partition string) (bool, error) {
	of := *a
	i := strings.Index(a.base, "/admin/v2/")
	of.base = a.base[:i] + "/admin/v2/" + topicPath(partition)
	var stats struct{ DeduplicationStatus string }
	err := of.do(ctx, http.MethodGet, "/stats", nil, &stats)
	var answer *errAdmin
	if errors.As(err, &answer) && answer.status == http.StatusNotFound {
		return true, nil
	}
	return strings.EqualFold(stats.DeduplicationStatus, "Enabled"), err
}

// adminMove is how long a policy may take to reach all partitions.
const adminMove = 30 * time.Second

// errNoAnswer is returned when the admin API does not tell whether the topic de-duplicates.
var errNoAnswer = errors.New("asking whether the topic de-duplicates")

// ensureDeduplication asks, once, whether the topic de-duplicates, and switches it on if it does not. Its errors:
// errNoAnswer, errDeduplicationOff, and others that may go away.
func (s *session) ensureDeduplication(ctx context.Context, topic string) error {
	if s.proven.Load() || s.asked.Load() {
		return nil
	}
	a := newAdmin(s.conf.adminURL, topic, s.conf.adminTLS, s.provider)
	on, err := a.deduplicates(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", fieldAdminURL, errNoAnswer, err)
	}
	if !on {
		if err := a.enable(ctx); err != nil {
			return fmt.Errorf("%w. It could not be switched on over %s: %w", errDeduplicationOff, fieldAdminURL, err)
		}
		s.log.Infof("De-duplication was switched on for topic %s, by a policy of the topic", topic)
	}
	// Somebody else may have switched it on just now, or we, with a Connect that was given up in the middle.
	if err := s.awaitDeduplication(ctx, a, topic); err != nil {
		return err
	}
	s.asked.Store(true)
	return nil
}

// awaitDeduplication waits until every partition acts by the policy. Roles that may not see the statistics do without: the
// first message tells.
func (s *session) awaitDeduplication(ctx context.Context, a *admin, topic string) error {
	ctx, cancel := context.WithTimeout(ctx, adminMove)
	defer cancel()
	t, err := s.topics.use(topic, time.Now())
	if err != nil {
		return err
	}
	defer s.topics.done(t, time.Now())
	l, err := t.known(ctx)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for _, p := range l.partitions {
		for {
			ok, err := a.isInForce(ctx, p.name)
			var answer *errAdmin
			if errors.As(err, &answer) && (answer.status == http.StatusForbidden || answer.status == http.StatusUnauthorized) {
				return nil
			}
			if ok {
				break
			}
			if err != nil {
				s.log.Debugf("No statistics of %s: %v", p.name, err)
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return fmt.Errorf("%s: de-duplication was switched on for %s, but %s does not act by it: %w", fieldAdminURL, topic, p.name, context.Cause(ctx))
			case <-s.stop:
				return errClosed
			}
		}
	}
	return nil
}
