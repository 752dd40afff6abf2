package credentials

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/wholebody"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/leaktest"
)

func TestMain(m *testing.M) { leaktest.VerifyTestMain(m) }

// fakeSTS answers AssumeRole as STS does; what it hands out lives for `lifetime`.
type fakeSTS struct {
	*httptest.Server
	mu struct {
		sync.Mutex
		calls    []url.Values
		signed   []string
		lifetime time.Duration
		refuse   bool
	}
}

func newFakeSTS(t *testing.T, lifetime time.Duration) *fakeSTS {
	t.Helper()
	f := &fakeSTS{}
	f.mu.lifetime = lifetime
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeSTS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := r.ParseForm(); err != nil || r.Form.Get("Action") != "AssumeRole" {
		http.Error(w, "unexpected request", http.StatusBadRequest)
		return
	}
	f.mu.calls = append(f.mu.calls, r.Form)
	f.mu.signed = append(f.mu.signed, r.Header.Get("Authorization"))
	w.Header().Set("Content-Type", "text/xml")
	if f.mu.refuse {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized to perform sts:AssumeRole</Message></Error><RequestId>r-1</RequestId></ErrorResponse>`)
		return
	}
	fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials><AccessKeyId>ASIA%d</AccessKeyId><SecretAccessKey>s3cr3t</SecretAccessKey><SessionToken>t0k3n</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
		len(f.mu.calls), time.Now().Add(f.mu.lifetime).UTC().Format(time.RFC3339Nano))
}

func (f *fakeSTS) set(lifetime time.Duration, refuse bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.lifetime, f.mu.refuse = lifetime, refuse
}

func (f *fakeSTS) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.mu.calls)
}

// isolate keeps the machine's own AWS configuration out of a test.
func isolate(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/config")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", t.TempDir()+"/credentials")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

func (f *fakeSTS) options(param string) Options {
	return Options{
		PluginName: AssumeRoleClass, PluginParam: Secret(param), Region: "eu-west-1", STSEndpoint: f.URL, HTTPClient: &http.Client{Transport: wholebody.Transport(f.Client().Transport)},
		Base: credentials.NewStaticCredentialsProvider("AKIABASE", "base", ""),
	}
}

const plainRole = `{"roleArn":"` + role + `","roleSessionName":"s-1"}`

func retrieve(t *testing.T, p aws.CredentialsProvider) aws.Credentials {
	t.Helper()
	c, err := p.Retrieve(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestStaticKeysAndToken(t *testing.T) {
	p, err := New(Options{PluginParam: `{"accessKey":"a","secretKey":"b","sessionToken":"c"}`})
	if err != nil {
		t.Fatal(err)
	}
	if c := retrieve(t, p); c.AccessKeyID != "a" || c.SecretAccessKey != "b" || c.SessionToken != "c" || c.CanExpire {
		t.Errorf("got %q, expiring %v", c.AccessKeyID, c.CanExpire)
	}
}

func TestDefaultChainReadsTheEnvironment(t *testing.T) {
	for _, class := range []string{"", DefaultChainClass, oldDefaultChainClass} {
		isolate(t)
		t.Setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
		t.Setenv("AWS_SESSION_TOKEN", "c")
		p, err := New(Options{PluginName: class})
		if err != nil {
			t.Fatal(err)
		}
		if c := retrieve(t, p); c.AccessKeyID != "AKIAENV" || c.SessionToken != "c" {
			t.Errorf("%q: got %q", class, c.AccessKeyID)
		}
	}
}

func TestDefaultChainWithoutCredentialsFailsOnUse(t *testing.T) {
	isolate(t)
	p, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Retrieve(context.Background()); err == nil {
		t.Error("credentials out of nowhere")
	}
}

func TestDefaultChainTellsOfAMissingProfile(t *testing.T) {
	isolate(t)
	t.Setenv("AWS_PROFILE", "absent-profile")
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "absent-profile") {
		t.Errorf("got %v", err)
	}
}

func TestRoleIsAssumedInTheConfiguredRegion(t *testing.T) {
	isolate(t)
	f := newFakeSTS(t, time.Hour)
	p, err := New(f.options(`{"roleArn":"` + role + `","roleSessionName":"s-1","externalId":"ext-1","durationSeconds":7200}`))
	if err != nil {
		t.Fatal(err)
	}
	if f.count() != 0 {
		t.Error("building the provider already called STS")
	}
	c := retrieve(t, p)
	if c.AccessKeyID != "ASIA1" || c.SecretAccessKey != "s3cr3t" || c.SessionToken != "t0k3n" {
		t.Errorf("got %q", c.AccessKeyID)
	}
	for range 3 {
		retrieve(t, p)
	}
	if f.count() != 1 {
		t.Errorf("STS was asked %d times for credentials that are valid for an hour", f.count())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	call, signed := f.mu.calls[0], f.mu.signed[0]
	for name, want := range map[string]string{"RoleArn": role, "RoleSessionName": "s-1", "ExternalId": "ext-1", "DurationSeconds": "7200"} {
		if call.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, call.Get(name), want)
		}
	}
	if !strings.Contains(signed, "AKIABASE") || !strings.Contains(signed, "/eu-west-1/sts/") {
		t.Errorf("signed with %q", signed)
	}
}

func TestRoleUsesTheDefaultChainAndStsDefaultDuration(t *testing.T) {
	isolate(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
	f := newFakeSTS(t, time.Hour)
	opts := f.options(plainRole)
	opts.Base = nil
	p, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	retrieve(t, p)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !strings.Contains(f.mu.signed[0], "AKIAENV") || f.mu.calls[0].Get("DurationSeconds") != "3600" || f.mu.calls[0].Has("ExternalId") {
		t.Errorf("asked with %v, signed with %q", f.mu.calls[0], f.mu.signed[0])
	}
}

func TestRoleIsRenewedBeforeItExpires(t *testing.T) {
	isolate(t)
	f := newFakeSTS(t, refreshWindow-time.Minute) // valid, but inside of the window from the start
	p, err := New(f.options(plainRole))
	if err != nil {
		t.Fatal(err)
	}
	if c := retrieve(t, p); c.AccessKeyID != "ASIA1" {
		t.Fatalf("got %q", c.AccessKeyID)
	}
	f.set(time.Hour, false)
	if c := retrieve(t, p); c.AccessKeyID != "ASIA2" {
		t.Errorf("credentials that expire in four minutes were not renewed: %q", c.AccessKeyID)
	}
	retrieve(t, p)
	if f.count() != 2 {
		t.Errorf("STS was asked %d times", f.count())
	}
}

func TestRoleIsUsedOnWhileStsRefuses(t *testing.T) {
	isolate(t)
	f := newFakeSTS(t, refreshWindow-time.Minute)
	p, err := New(f.options(plainRole))
	if err != nil {
		t.Fatal(err)
	}
	retrieve(t, p)
	f.set(time.Hour, true)
	for range 3 {
		if c := retrieve(t, p); c.AccessKeyID != "ASIA1" {
			t.Errorf("got %q", c.AccessKeyID)
		}
	}
	if f.count() != 2 {
		t.Errorf("STS was asked %d times; after a refusal it must be left alone for a while", f.count())
	}
}

func TestRefusedRoleSaysWhich(t *testing.T) {
	isolate(t)
	f := newFakeSTS(t, time.Hour)
	f.set(time.Hour, true)
	p, err := New(f.options(plainRole))
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Retrieve(context.Background())
	if err == nil {
		t.Fatal("credentials in spite of a refusal")
	}
	for _, want := range []string{"assuming role " + role + " as s-1", "AccessDenied", "not authorized to perform sts:AssumeRole"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "base") {
		t.Errorf("the error holds a secret: %v", err)
	}
}

func TestExtendEndsWithTheCredentials(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		left, want time.Duration
		ok         bool
	}{{time.Hour, retryAfter, true}, {retryAfter / 2, retryAfter / 2, true}, {1, 1, true}, {0, 0, false}, {-time.Second, 0, false}} {
		until, ok := extend(now, now.Add(c.left))
		if ok != c.ok || ok && until.Sub(now) != c.want {
			t.Errorf("with %s left: until %s, %v", c.left, until.Sub(now), ok)
		}
	}
	if _, ok := extend(now, time.Time{}); ok {
		t.Error("credentials that were never there are used on")
	}
}
