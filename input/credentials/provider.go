package credentials

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
)

const (
	// refreshWindow is how long before their expiry credentials are renewed: longer than any retrying of STS takes, so
	// that a request never meets credentials that are about to lapse. The Java SDK prefetches at the same distance.
	refreshWindow = 5 * time.Minute
	// retryAfter is how long credentials that are still valid are used on after STS refused to renew them.
	retryAfter = 30 * time.Second
)

// Options say which credentials are wanted. Everything but the first three is for tests and for private STS endpoints.
type Options struct {
	// PluginName and PluginParam are awsCredentialPluginName and awsCredentialPluginParam as written.
	PluginName  string
	PluginParam Secret
	// Region is awsRegion; STS and the default chain use it. Empty: the SDK's own search. (The Java connector never
	// passes it on, so that its assume-role plugin fails outside AWS without AWS_REGION.)
	Region string
	// STSEndpoint is the URL of STS; empty: the SDK's.
	STSEndpoint string
	// HTTPClient is used for the calls to STS; nil: the SDK's. The default chain keeps the SDK's own client: it makes one
	// with short timeouts for the instance metadata address, which answers nothing outside EC2.
	HTTPClient aws.HTTPClient
	// Base signs the calls to STS; nil: the default chain.
	Base aws.CredentialsProvider
	// Logger gets what the SDK says while it looks for credentials; nil: standard error.
	Logger logging.Logger
}

// ErrNone is returned when the default chain finds no credentials anywhere.
var ErrNone = errors.New("no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE in the environment, run with the role of an instance or a container, or write awsCredentialPluginParam")

// explained tells what to do when there are no credentials. What the SDK's chain says then is the last thing that it has tried,
// which is the address of EC2's metadata.
type explained struct{ chain aws.CredentialsProvider }

func (e explained) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := e.chain.Retrieve(ctx)
	if err != nil && ctx.Err() == nil && strings.Contains(err.Error(), "no EC2 IMDS role found") {
		err = fmt.Errorf("%w (%w)", ErrNone, err)
	}
	return c, err
}

// Explained makes a provider of the default chain tell what to do when it finds nothing. It is put before the clients, behind
// everything that caches.
func Explained(chain aws.CredentialsProvider) aws.CredentialsProvider { return explained{chain} }

// New parses and builds in one: see Parse and Plugin.Provider.
func New(opts Options) (aws.CredentialsProvider, error) {
	p, err := Parse(opts.PluginName, opts.PluginParam)
	if err != nil {
		return nil, err
	}
	return p.Provider(context.Background(), opts)
}

// Provider builds the provider, which is safe for concurrent use and caches. No network call is made before the first
// Retrieve; but the default chain (and with it AssumeRole) reads the environment and the shared config files, whose
// mistakes (an AWS_PROFILE that does not exist) are returned here.
func (p Plugin) Provider(ctx context.Context, opts Options) (aws.CredentialsProvider, error) {
	if p.Kind == Static {
		return credentials.NewStaticCredentialsProvider(p.AccessKey, p.SecretKey.Reveal(), p.SessionToken.Reveal()), nil
	}
	var load []func(*config.LoadOptions) error
	if opts.Region != "" {
		load = append(load, config.WithRegion(opts.Region))
	}
	if opts.Logger != nil {
		load = append(load, config.WithLogger(opts.Logger))
	}
	if opts.Base != nil {
		load = append(load, config.WithCredentialsProvider(opts.Base))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("loading the AWS SDK's default credential chain: %w", err)
	}
	if p.Kind == DefaultChain {
		return cfg.Credentials, nil
	}
	client := sts.NewFromConfig(cfg, func(o *sts.Options) {
		if opts.HTTPClient != nil {
			o.HTTPClient = opts.HTTPClient
		}
		if opts.STSEndpoint != "" {
			o.BaseEndpoint = aws.String(opts.STSEndpoint)
		}
	})
	role := &assumedRole{plugin: p, inner: stscreds.NewAssumeRoleProvider(client, p.RoleARN, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = p.RoleSessionName
		// stscreds would ask for 15 minutes; the Java plugin leaves it to STS, whose default is an hour. Role chaining
		// is limited to an hour too, so the default never fails for a length.
		o.Duration = time.Hour
		if p.Duration != 0 {
			o.Duration = p.Duration
		}
		if p.ExternalID != "" {
			o.ExternalID = aws.String(p.ExternalID)
		}
	})}
	return aws.NewCredentialsCache(role, func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = refreshWindow }), nil
}

// assumedRole is what the SDK's cache asks when the refresh window has begun. It keeps the true expiry, which the cache
// overwrites, so that an STS that is away costs nothing as long as the last credentials are valid: the cache alone would
// fail every request of the window's five minutes, lease renewals included.
type assumedRole struct {
	plugin Plugin
	inner  *stscreds.AssumeRoleProvider

	mu      sync.Mutex
	expires time.Time // guarded by mu
}

// Retrieve assumes the role.
func (r *assumedRole) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := r.inner.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("assuming role %s as %s: %w", r.plugin.RoleARN, r.plugin.RoleSessionName, err)
	}
	r.mu.Lock()
	r.expires = c.Expires
	r.mu.Unlock()
	return c, nil
}

// HandleFailToRefresh hands the last credentials out again while they are valid, to be renewed after retryAfter.
func (r *assumedRole) HandleFailToRefresh(_ context.Context, last aws.Credentials, err error) (aws.Credentials, error) {
	r.mu.Lock()
	expires := r.expires
	r.mu.Unlock()
	until, ok := extend(time.Now(), expires)
	if !ok || !last.HasKeys() {
		return aws.Credentials{}, err
	}
	// The cache subtracts its window from whatever is returned here.
	last.Expires = until.Add(refreshWindow)
	return last, nil
}

// extend says until when credentials with the given true expiry may be used after a failed renewal.
func extend(now, expires time.Time) (time.Time, bool) {
	if !now.Before(expires) {
		return time.Time{}, false
	}
	if until := now.Add(retryAfter); until.Before(expires) {
		return until, true
	}
	return expires, true
}
