"""Who may call what: every RPC of the contract, in one table. A test holds it to the descriptors."""

from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import assert_never

from coordinator.domain.account import Role, Scope


class Access(StrEnum):
    ANYBODY = "anybody"  # the request itself carries what it needs
    ACCOUNT = "account"  # any account's token
    BUYER = "buyer"
    SELLER = "seller"
    OPERATOR = "operator"
    HOST = "host"  # an enrolled host's certificate, on the host port


@dataclass(frozen=True)
class Rule:
    """Who may call it, what a token must open for it, and whether each call is kept in the log of acts."""

    access: Access
    # None: any token will do, or none is asked for.
    scope: Scope | None = None
    _: KW_ONLY
    is_act: bool = False


ACCESS: dict[str, Rule] = {
    "/usance.v1.MarketService/ListOffers": Rule(Access.BUYER, Scope.JOBS_READ),
    "/usance.v1.MarketService/QuoteJob": Rule(Access.BUYER, Scope.JOBS_READ),
    "/usance.v1.MarketService/SubmitJob": Rule(Access.BUYER, Scope.JOBS_WRITE, is_act=True),
    "/usance.v1.MarketService/GetJob": Rule(Access.BUYER, Scope.JOBS_READ),
    "/usance.v1.MarketService/ListJobs": Rule(Access.BUYER, Scope.JOBS_READ),
    "/usance.v1.MarketService/WatchJob": Rule(Access.BUYER, Scope.JOBS_READ),
    "/usance.v1.MarketService/ReadLogs": Rule(Access.BUYER, Scope.JOBS_READ),
    "/usance.v1.MarketService/CancelJob": Rule(Access.BUYER, Scope.JOBS_WRITE, is_act=True),
    "/usance.v1.MarketService/ExtendJob": Rule(Access.BUYER, Scope.JOBS_WRITE, is_act=True),
    "/usance.v1.MarketService/WatchOffers": Rule(Access.BUYER, Scope.JOBS_READ),
    "/usance.v1.MarketService/GetBill": Rule(Access.BUYER, Scope.JOBS_READ),
    "/usance.v1.AccountService/GetSelf": Rule(Access.ACCOUNT),
    "/usance.v1.AccountService/GetWallet": Rule(Access.ACCOUNT, Scope.WALLET_READ),
    "/usance.v1.TokenService/CreateOwnToken": Rule(Access.ACCOUNT, Scope.TOKENS_WRITE, is_act=True),
    "/usance.v1.TokenService/ListTokens": Rule(Access.ACCOUNT, Scope.TOKENS_READ),
    "/usance.v1.TokenService/RevokeToken": Rule(Access.ACCOUNT, Scope.TOKENS_WRITE, is_act=True),
    "/usance.v1.BooksService/GetStatement": Rule(Access.ACCOUNT, Scope.WALLET_READ),
    "/usance.v1.BooksService/ListCosts": Rule(Access.ACCOUNT, Scope.WALLET_READ),
    "/usance.v1.BooksService/ListEarnings": Rule(Access.ACCOUNT, Scope.WALLET_READ),
    "/usance.v1.BooksService/GetSpendingCap": Rule(Access.ACCOUNT, Scope.WALLET_READ),
    "/usance.v1.BooksService/SetSpendingCap": Rule(Access.ACCOUNT, Scope.WALLET_WRITE, is_act=True),
    "/usance.v1.BooksService/ListPrices": Rule(Access.ACCOUNT),
    "/usance.v1.OperationsService/Withdraw": Rule(Access.OPERATOR, Scope.ADMIN_WRITE, is_act=True),
    "/usance.v1.OperationsService/RefundJob": Rule(Access.OPERATOR, Scope.ADMIN_WRITE, is_act=True),
    "/usance.v1.OperationsService/ListAllHosts": Rule(Access.OPERATOR, Scope.ADMIN_READ),
    "/usance.v1.OperationsService/ListGpuClaims": Rule(Access.OPERATOR, Scope.ADMIN_READ),
    "/usance.v1.OperationsService/ReleaseGpu": Rule(Access.OPERATOR, Scope.ADMIN_WRITE, is_act=True),
    "/usance.v1.OperationsService/ListActs": Rule(Access.OPERATOR, Scope.ADMIN_READ),
    "/usance.v1.OperationsService/GetHealth": Rule(Access.OPERATOR, Scope.ADMIN_READ),
    "/usance.v1.SellerService/CreateEnrolmentToken": Rule(Access.SELLER, Scope.HOSTS_WRITE, is_act=True),
    "/usance.v1.SellerService/ListHosts": Rule(Access.SELLER, Scope.HOSTS_READ),
    "/usance.v1.SellerService/PauseHost": Rule(Access.SELLER, Scope.HOSTS_WRITE, is_act=True),
    "/usance.v1.SellerService/ResumeHost": Rule(Access.SELLER, Scope.HOSTS_WRITE, is_act=True),
    "/usance.v1.SellerService/ReclaimHost": Rule(Access.SELLER, Scope.HOSTS_WRITE, is_act=True),
    "/usance.v1.AdminService/CreateAccount": Rule(Access.OPERATOR, Scope.ADMIN_WRITE, is_act=True),
    "/usance.v1.AdminService/ListAccounts": Rule(Access.OPERATOR, Scope.ADMIN_READ),
    "/usance.v1.AdminService/CreateToken": Rule(Access.OPERATOR, Scope.ADMIN_WRITE, is_act=True),
    "/usance.v1.AdminService/Deposit": Rule(Access.OPERATOR, Scope.ADMIN_WRITE, is_act=True),
    "/usance.v1.AdminService/GetTrialBalance": Rule(Access.OPERATOR, Scope.ADMIN_READ),
    "/usance.v1.AdminService/QuarantineHost": Rule(Access.OPERATOR, Scope.ADMIN_WRITE, is_act=True),
    "/usance.v1.AdminService/UnquarantineHost": Rule(Access.OPERATOR, Scope.ADMIN_WRITE, is_act=True),
    "/usance.v1.AdminService/RevokeHost": Rule(Access.OPERATOR, Scope.ADMIN_WRITE, is_act=True),
    "/usance.v1.AdminService/RunAudit": Rule(Access.OPERATOR, Scope.ADMIN_READ),
    "/usance.v1.EnrolmentService/Enroll": Rule(Access.ANYBODY, is_act=True),
    "/usance.v1.LoginService/Login": Rule(Access.ANYBODY, is_act=True),
    "/usance.v1.LoginService/AcceptInvitation": Rule(Access.ANYBODY, is_act=True),
    "/usance.v1.LoginService/RefreshSession": Rule(Access.ANYBODY),
    "/usance.v1.SessionService/ChangePassword": Rule(Access.ACCOUNT, Scope.TOKENS_WRITE, is_act=True),
    "/usance.v1.SessionService/ListSessions": Rule(Access.ACCOUNT, Scope.TOKENS_READ),
    "/usance.v1.SessionService/RevokeSession": Rule(Access.ACCOUNT, Scope.TOKENS_WRITE, is_act=True),
    "/usance.v1.PeopleService/CreateInvitation": Rule(Access.OPERATOR, Scope.ADMIN_WRITE, is_act=True),
    "/usance.v1.PeopleService/BindSubject": Rule(Access.OPERATOR, Scope.ADMIN_WRITE, is_act=True),
    "/usance.v1.PeopleService/ReleaseSubject": Rule(Access.OPERATOR, Scope.ADMIN_WRITE, is_act=True),
    "/usance.v1.PeopleService/ListSubjects": Rule(Access.OPERATOR, Scope.ADMIN_READ),
    "/usance.v1.HostService/RenewCertificate": Rule(Access.HOST, is_act=True),
    "/usance.v1.HostService/Synchronize": Rule(Access.HOST),
    "/usance.v1.HostService/GetStanding": Rule(Access.HOST),
    "/usance.v1.HostService/SetHold": Rule(Access.HOST, is_act=True),
    # gRPC's own: whether we serve, and what the contract is.
    "/grpc.health.v1.Health/Check": Rule(Access.ANYBODY),
    "/grpc.health.v1.Health/Watch": Rule(Access.ANYBODY),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(Access.ANYBODY),
}


def allows(access: Access, roles: frozenset[Role]) -> bool:
    """May an account with these roles call it?"""
    match access:
        case Access.ANYBODY | Access.ACCOUNT:
            return True
        case Access.BUYER:
            return Role.BUYER in roles
        case Access.SELLER:
            return Role.SELLER in roles
        case Access.OPERATOR:
            return Role.OPERATOR in roles
        case Access.HOST:
            return False
        case _ as never:
            assert_never(never)
