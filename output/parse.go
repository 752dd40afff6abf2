package output

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/redpanda-data/benthos/v4/public/service"
)

var compressions = map[string]pulsar.CompressionType{
	"lz4":    pulsar.LZ4,
	"none":   pulsar.NoCompression,
	"zstd":   pulsar.ZSTD,
	"zlib":   pulsar.ZLib,
	"snappy": pulsar.SNAPPY,
}

var compressionLevels = map[string]pulsar.CompressionLevel{
	"default": pulsar.Default,
	"faster":  pulsar.Faster,
	"better":  pulsar.Better,
}

// config is the configuration with its values checked and in Go's types.
type config struct {
	url               string
	topic             text
	key               text
	orderingKey       text
	properties        *service.MetadataFilter
	eventTime         eventTime
	maxInFlight       int
	tls               *tls.Config // nil without TLS
	adminURL          string      // "" for none
	adminTLS          *tls.Config // for the admin API, whose scheme is its own
	auth              authConfig
	compression       pulsar.CompressionType
	compressionLevel  pulsar.CompressionLevel
	hashing           hashingScheme
	batching          batchingConfig
	chunking          bool
	deduplication     bool
	deadLetterTopic   string        // "" for none
	producerName      string        // what names begin with, "" if the broker makes them
	maxPending        int           // messages of a partition
	maxPendingBytes   int           // of a partition
	sendTimeout       time.Duration // negative: none
	connectionTimeout time.Duration
	operationTimeout  time.Duration
	firstReconnect    time.Duration
	lastReconnect     time.Duration
}

type batchingConfig struct {
	enabled         bool
	maxPublishDelay time.Duration
	maxMessages     int
	maxSize         int // bytes
}

// parseConfig reads and checks the configuration. The checks are those of the lint rules too: not everything that is run
// was linted before. It reads the TLS files, and uses no network.
func parseConfig(p *service.ParsedConfig) (*config, error) {
	c := &config{}
	var err error
	read := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	read(func() error { c.url, err = p.FieldString(fieldURL); return err })
	read(func() error { return c.readTexts(p) })
	read(func() error { return c.readEventTime(p) })
	read(func() error {
		c.properties, err = p.FieldMetadataFilter(fieldProperties)
		return inField(fieldProperties, err)
	})
	read(func() error { c.maxInFlight, err = p.FieldMaxInFlight(); return err })
	read(func() error { return c.readTLS(p) })
	read(func() error { return c.readAuth(p.Namespace(fieldAuth)) })
	read(func() error { return c.readEnums(p) })
	read(func() error { return c.readBatching(p.Namespace(fieldBatching)) })
	read(func() error { c.sendTimeout, err = duration(p, fieldSendTimeout, 0); return err })
	read(func() error { c.connectionTimeout, err = duration(p, fieldConnectionTimeout, 1); return err })
	read(func() error { c.operationTimeout, err = duration(p, fieldOperationTimeout, 1); return err })
	read(func() error { return c.readProducer(p) })
	read(func() error { return c.readBackoff(p.Namespace(fieldReconnectBackoff)) })
	if err != nil {
		return nil, err
	}
	if c.sendTimeout == 0 {
		c.sendTimeout = -1 // 0 means 30 s to the client
	}
	return c, c.validate()
}

func inField(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

func (c *config) readTexts(p *service.ParsedConfig) error {
	for name, to := range map[string]*text{fieldTopic: &c.topic, fieldKey: &c.key, fieldOrderingKey: &c.orderingKey} {
		raw, err := p.FieldString(name)
		if err != nil {
			return err
		}
		expr, err := p.FieldInterpolatedString(name)
		if err != nil {
			return inField(name, err)
		}
		*to = newText(raw, expr)
		if _, constant := to.static(); !constant && dottedMetadata.MatchString(raw) {
			return fmt.Errorf("%s: %s", name, dottedRuleOf(name))
		}
	}
	return nil
}

func (c *config) readEventTime(p *service.ParsedConfig) error {
	raw, err := p.FieldString(fieldEventTime)
	if err != nil {
		return err
	}
	expr, err := p.FieldInterpolatedString(fieldEventTime)
	if err != nil {
		return inField(fieldEventTime, err)
	}
	c.eventTime, err = newEventTime(raw, expr)
	return inField(fieldEventTime, err)
}

func (c *config) readTLS(p *service.ParsedConfig) error {
	settings, err := p.FieldTLS(fieldTLS)
	if err != nil {
		return inField(fieldTLS, err)
	}
	c.adminTLS = settings
	if strings.HasPrefix(c.url, "pulsar+ssl://") {
		c.tls = settings
	}
	return nil
}

func (c *config) readAuth(p *service.ParsedConfig) error {
	for _, f := range []struct {
		path []string
		to   any
	}{
		{[]string{"token", "enabled"}, &c.auth.token.enabled},
		{[]string{"token", "token"}, &c.auth.token.token},
		{[]string{"token", "file"}, &c.auth.token.file},
		{[]string{"oauth2", "enabled"}, &c.auth.oauth2.enabled},
		{[]string{"oauth2", "audience"}, &c.auth.oauth2.audience},
		{[]string{"oauth2", "issuer_url"}, &c.auth.oauth2.issuerURL},
		{[]string{"oauth2", "scope"}, &c.auth.oauth2.scope},
		{[]string{"oauth2", "private_key_file"}, &c.auth.oauth2.privateKeyFile},
	} {
		if !p.Contains(f.path...) {
			continue
		}
		var err error
		switch to := f.to.(type) {
		case *bool:
			*to, err = p.FieldBool(f.path...)
		case *string:
			*to, err = p.FieldString(f.path...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *config) readEnums(p *service.ParsedConfig) error {
	name, err := p.FieldString(fieldCompression)
	if err != nil {
		return err
	}
	var ok bool
	if c.compression, ok = compressions[strings.ToLower(name)]; !ok {
		return fmt.Errorf("%s: %q is not one of lz4, none, zstd, zlib, snappy", fieldCompression, name)
	}
	if name, err = p.FieldString(fieldCompressionLevel); err != nil {
		return err
	}
	if c.compressionLevel, ok = compressionLevels[strings.ToLower(name)]; !ok {
		return fmt.Errorf("%s: %q is not one of default, faster, better", fieldCompressionLevel, name)
	}
	if name, err = p.FieldString(fieldChunking); err != nil {
		return err
	}
	switch strings.ToLower(name) {
	case chunkingAuto:
		c.chunking = true
	case chunkingOff:
	default:
		return fmt.Errorf("%s: %q is not one of %s, %s", fieldChunking, name, chunkingAuto, chunkingOff)
	}
	if name, err = p.FieldString(fieldHashingScheme); err != nil {
		return err
	}
	switch c.hashing = hashingScheme(strings.ToLower(name)); c.hashing {
	case hashMurmur3, hashJavaString:
		return nil
	default:
		return fmt.Errorf("%s: %q is not one of %s, %s", fieldHashingScheme, name, hashMurmur3, hashJavaString)
	}
}

func (c *config) readBatching(p *service.ParsedConfig) error {
	b := &c.batching
	var err error
	if b.enabled, err = p.FieldBool("enabled"); err != nil {
		return err
	}
	if b.maxPublishDelay, err = duration(p, "max_publish_delay", 1); err != nil {
		return inField(fieldBatching, err)
	}
	for name, to := range map[string]*int{"max_messages": &b.maxMessages, "max_size": &b.maxSize} {
		if *to, err = p.FieldInt(name); err != nil {
			return err
		}
		if *to < 1 {
			return fmt.Errorf("%s.%s: must be at least 1, is %d", fieldBatching, name, *to)
		}
	}
	return nil
}

func (c *config) readProducer(p *service.ParsedConfig) error {
	var err error
	if c.deadLetterTopic, err = p.FieldString(fieldDeadLetterTopic); err != nil {
		return err
	}
	if c.producerName, err = p.FieldString(fieldProducerName); err != nil {
		return err
	}
	if c.maxPending, err = p.FieldInt(fieldMaxPending); err != nil {
		return err
	}
	if c.maxPendingBytes, err = p.FieldInt(fieldMaxPendingBytes); err != nil {
		return err
	}
	if c.adminURL, err = p.FieldString(fieldAdminURL); err != nil {
		return err
	}
	c.deduplication, err = p.FieldBool(fieldDeduplication)
	return err
}

func (c *config) readBackoff(p *service.ParsedConfig) error {
	var err error
	if c.firstReconnect, err = duration(p, "initial_interval", 1); err != nil {
		return inField(fieldReconnectBackoff, err)
	}
	c.lastReconnect, err = duration(p, "max_interval", 1)
	return inField(fieldReconnectBackoff, err)
}

func duration(p *service.ParsedConfig, name string, atLeast time.Duration) (time.Duration, error) {
	raw, err := p.FieldString(name)
	if err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(raw)
	if err != nil || d < atLeast {
		return 0, fmt.Errorf(`%s: %q is not a duration such as "30s"`, name, raw)
	}
	return d, nil
}

func (c *config) validate() error {
	if !serviceURL.MatchString(c.url) {
		return errors.New(fieldURL + ": " + urlRule)
	}
	if name, ok := c.topic.static(); ok && !topicName.MatchString(name) {
		return errors.New(fieldTopic + ": " + topicRule)
	}
	if c.maxInFlight < 1 {
		return fmt.Errorf("%s: must be at least 1, is %d", fieldMaxInFlight, c.maxInFlight)
	}
	switch topic, _ := c.topic.static(); {
	case c.compressionLevel != pulsar.Default && c.compression != pulsar.ZSTD:
		return errors.New(fieldCompressionLevel + ": " + levelRule)
	case c.deadLetterTopic != "" && !topicName.MatchString(c.deadLetterTopic):
		return errors.New(fieldDeadLetterTopic + ": " + topicRule)
	case c.deadLetterTopic != "" && c.deadLetterTopic == topic:
		return errors.New(fieldDeadLetterTopic + ": " + deadLetterRule)
	case !producerName.MatchString(c.producerName):
		return errors.New(fieldProducerName + ": " + producerNameRule)
	case c.maxPending < 1 || c.maxPending > mostPending:
		return fmt.Errorf("%s: must be from 1 to %d, is %d", fieldMaxPending, mostPending, c.maxPending)
	case c.maxPendingBytes < 1:
		return fmt.Errorf("%s: must be at least 1, is %d", fieldMaxPendingBytes, c.maxPendingBytes)
	case c.firstReconnect > c.lastReconnect:
		return errors.New(fieldReconnectBackoff + ": " + backoffRule)
	}
	if err := c.checkExact(); err != nil {
		return err
	}
	if err := c.auth.validate(); err != nil {
		return err
	}
	return c.auth.checkFiles()
}
