"""Settings of what is logged to MLflow."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from components.settings import Settings


class TrackingSettings(Settings):
    """Where finished runs are logged."""

    mlflow_uri: str = Field(
        "", description="MLflow server that finished runs are logged to, as https://mlflow.example.com; empty for none"
    )
    experiment: str = Field("", description="MLflow experiment; project.name if empty")
    log_model: bool = Field(False, description="upload the model to MLflow, not only where it is")

    @field_validator("mlflow_uri")
    @classmethod
    def _check_address(cls, value: str) -> str:
        if not value:
            return value
        try:
            parts = urlsplit(value)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected the address of an MLflow server, such as https://mlflow.example.com")
        if parts.username or parts.password:
            raise ValueError(
                "expected an address without user and password, because settings are written to files; set the "
                "environment variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return value
