package dynamotest_test

import "net/http"

func newTransport() *http.Transport { return &http.Transport{MaxIdleConnsPerHost: 32} }

func httpClient(t *http.Transport) *http.Client { return &http.Client{Transport: t} }
