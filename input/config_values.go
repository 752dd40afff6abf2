package input

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/credentials"
)

const (
	maxTableName    = 255 // of DynamoDB, whose names have at least 3 characters
	minTableName    = 3
	maxConsumerName = 128 // of Kinesis' enhanced fan-out
	maxStreamName   = 128
)

var (
	streamName   = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)
	streamARN    = regexp.MustCompile(`^arn:[a-z0-9-]+:kinesis:([a-z0-9-]+):[0-9]{12}:stream/([a-zA-Z0-9_.-]{1,128})$`)
	tableName    = regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,255}$`)
	consumerName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)
	// Its groups are the stream's ARN, region and name.
	consumerARN   = regexp.MustCompile(`^(arn:[a-z0-9-]+:kinesis:([a-z0-9-]+):[0-9]{12}:stream/([a-zA-Z0-9_.-]{1,128}))/consumer/[a-zA-Z0-9_.-]{1,128}:[0-9]+$`)
	notTableChars = regexp.MustCompile(`[^a-zA-Z0-9_.-]+`)
	regionName    = regexp.MustCompile(`^[a-zA-Z0-9-]{1,64}$`)
)

func parseStream(v any) (name, arn string, err error) {
	s, err := coerceString(v)
	if err != nil {
		return "", "", err
	}
	if m := streamARN.FindStringSubmatch(s); m != nil {
		return m[2], s, nil
	}
	switch {
	case streamName.MatchString(s):
		return s, "", nil
	case strings.TrimSpace(s) == "":
		return "", "", errors.New("is empty: write the name or the ARN of the Kinesis stream")
	case strings.HasPrefix(s, "arn:"):
		return "", "", fmt.Errorf("%s is not the ARN of a stream: write arn:aws:kinesis:REGION:ACCOUNT:stream/NAME or the name alone", shown(s))
	}
	return "", "", fmt.Errorf("%s is not the name of a stream: write 1 to %d of the characters a-z A-Z 0-9 _ . -, or the stream's ARN", shown(s), maxStreamName)
}

// arnRegion is the region in the ARN of a stream, empty when there is no ARN.
func arnRegion(arn string) string {
	if m := streamARN.FindStringSubmatch(arn); m != nil {
		return m[1]
	}
	return ""
}

func parseRegion(v any) (string, error) {
	s, err := coerceString(v)
	if err != nil {
		return "", err
	}
	if s = strings.TrimSpace(s); s != "" && !regionName.MatchString(s) {
		return "", fmt.Errorf("%s is not a region: write its code, for example us-east-1", shown(s))
	}
	return s, nil
}

// parseEndpoint takes an http or https URL without what an endpoint cannot have. A URL with a user is not shown, since
// it may hold a password.
func parseEndpoint(v any) (string, error) {
	s, err := coerceString(v)
	if err != nil {
		return "", err
	}
	if s = strings.TrimSpace(s); s == "" {
		return "", nil
	}
	u, err := url.Parse(s)
	switch {
	case strings.Contains(s, "@"):
		return "", errors.New("holds a user: write only scheme, host and port, for example https://some.endpoint.aws, and the keys in awsCredentialPluginParam")
	case err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") && u.RawQuery == "" && u.Fragment == "" && !strings.HasPrefix(u.Host, ":"):
		return s, nil
	case !strings.Contains(s, "://"):
		return "", fmt.Errorf("%s is not an http or https URL: write the scheme too, for example https://some.endpoint.aws or http://localhost:4566", shown(s))
	}
	return "", fmt.Errorf("%s is not an http or https URL of a host: write for example https://some.endpoint.aws or http://localhost:4566", shown(s))
}

func parseApplicationName(v any) (string, error) {
	s, err := coerceString(v)
	if err != nil {
		return "", err
	}
	if tableName.MatchString(s) {
		return s, nil
	}
	what := shown(s) + " cannot be"
	if s == "" {
		what = "is empty and cannot be"
	}
	return "", fmt.Errorf("%s the name of the lease table in DynamoDB, which it is: write %d to %d of the characters a-z A-Z 0-9 _ . -, for example %s",
		what, minTableName, maxTableName, proposeTableName(s))
}

func parseConsumerName(v any) (string, error) {
	s, err := coerceString(v)
	if err != nil {
		return "", err
	}
	switch {
	case s == "" || consumerName.MatchString(s):
		return s, nil
	case strings.HasPrefix(s, "arn:"):
		return "", fmt.Errorf("%s is an ARN: write it in consumerArn, or the name alone", shown(s))
	}
	return "", fmt.Errorf("%s is not the name of a consumer: write 1 to %d of the characters a-z A-Z 0-9 _ . -", shown(s), maxConsumerName)
}

func parseConsumerARN(v any) (string, error) {
	s, err := coerceString(v)
	if err != nil {
		return "", err
	}
	if s = strings.TrimSpace(s); s == "" || consumerARN.MatchString(s) {
		return s, nil
	}
	return "", fmt.Errorf("%s is not the ARN of a consumer: write arn:aws:kinesis:REGION:ACCOUNT:stream/STREAM/consumer/NAME:NUMBER, or the name alone in consumerName", shown(s))
}

// proposeTableName makes a valid name that its owner recognises.
func proposeTableName(s string) string {
	s = strings.Trim(notTableChars.ReplaceAllString(s, "-"), "-")
	if len(s) > maxConsumerName {
		s = s[:maxConsumerName]
	}
	if len(s) < minTableName {
		return "pulsar-kinesis"
	}
	return s
}

func parsePluginName(v any) (string, error) {
	s, err := coerceString(v)
	if err != nil {
		return "", err
	}
	s = strings.TrimSpace(s)
	if _, err := credentials.KindOf(s); err != nil {
		return "", fmt.Errorf("is not known: %w", err)
	}
	return s, nil
}

// parsePluginParam takes the JSON text of the Java connector. An object in its place, which is what people write when they
// meet a JSON text inside YAML, is refused, as the Java connector does: Benthos hides a secret field only if it is a text,
// and with anything else neither run nor echo gets past the hiding. No error shows a value.
func parsePluginParam(v any) (credentials.Secret, error) {
	if s, ok := v.(string); ok {
		return credentials.Secret(s), nil
	}
	return "", errors.New(`is not a text: write the JSON object in single quotes, '{"accessKey":"…","secretKey":"…"}'`)
}

func knownProperties() []string {
	return []string{
		string(PropertyArrivalTimestamp), string(PropertyEncryptionType), string(PropertyPartitionKey),
		string(PropertySequenceNumber), string(PropertyShardID), string(PropertyMillisBehindLatest),
		string(PropertySubSequenceNumber), string(PropertyStreamName),
	}
}

// parseProperties splits as the Java connector does: at commas, names trimmed, empty ones dropped. Unlike it, a name it
// does not know is an error: the property would be missing from every message without a word.
func parseProperties(v any) ([]Property, error) {
	var names []string
	switch t := v.(type) {
	case string:
		names = strings.Split(t, ",")
	case []any:
		for _, e := range t {
			s, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("%s is not a list of names: write names of %s", shown(v), strings.Join(knownProperties(), ", "))
			}
			names = append(names, s)
		}
	default:
		return nil, fmt.Errorf("%s is neither a text nor a list: write names separated by commas, of %s", shown(v), strings.Join(knownProperties(), ", "))
	}
	properties := []Property{}
	for _, name := range names {
		name = strings.TrimSpace(name)
		p := Property(name)
		switch {
		case name == "" || slices.Contains(properties, p):
		case slices.Contains(knownProperties(), name):
			properties = append(properties, p)
		default:
			return nil, fmt.Errorf("names %s, which is none of %s", shown(name), strings.Join(knownProperties(), ", "))
		}
	}
	return properties, nil
}
