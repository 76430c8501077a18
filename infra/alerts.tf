# The functions log one line per status change: "failed demo-1a2b3c: reason".
resource "google_logging_metric" "failed_runs" {
  name        = "${var.name}/failed_runs"
  description = "Runs that failed"
  filter      = <<-EOT
    resource.type="cloud_run_revision"
    resource.labels.service_name=~"^${var.name}-(launch|report)$"
    textPayload=~"^failed "
  EOT

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }

  depends_on = [google_project_service.used]
}

resource "google_monitoring_notification_channel" "email" {
  for_each     = toset(var.alert_emails)
  display_name = "${var.name}: ${each.value}"
  type         = "email"
  labels       = { email_address = each.value }
}

resource "google_monitoring_alert_policy" "failed_runs" {
  display_name          = "${var.name}: a run failed"
  combiner              = "OR"
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]

  conditions {
    display_name = "a run failed"
    condition_threshold {
      filter          = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.failed_runs.name}\" AND resource.type=\"cloud_run_revision\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"
      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_SUM"
      }
    }
  }
}

# A sweep logs a line per series that has made nothing for `series.stale_days`: "stale <id>: ...".
resource "google_logging_metric" "stale_series" {
  name        = "${var.name}/stale_series"
  description = "Series without a new product for days"
  filter      = <<-EOT
    resource.type="cloud_run_revision"
    resource.labels.service_name="${var.name}-launch"
    textPayload=~"^stale "
  EOT

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }

  depends_on = [google_project_service.used]
}

resource "google_monitoring_alert_policy" "stale_series" {
  display_name          = "${var.name}: a series makes nothing new"
  combiner              = "OR"
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]

  conditions {
    display_name = "a series makes nothing new"
    condition_threshold {
      filter          = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.stale_series.name}\" AND resource.type=\"cloud_run_revision\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"
      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_SUM"
      }
    }
  }
}
