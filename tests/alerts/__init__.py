"""The tests of dashboards/alerts."""
